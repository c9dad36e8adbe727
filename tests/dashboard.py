"""A Ray dashboard that is none: it answers what a cluster's would, or what a test wishes it did.

It speaks just what is asked of it, in the shapes of Ray 2.60. Jobs that are given to it do nothing
by themselves: a test says what becomes of them.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

GIB = 1 << 30
HEAD_ID = "929fbf6975d17d28af233009fb2e85bc2f115506d593083a76675d16"
HEAD: Mapping[str, float] = {"node:__internal_head__": 1.0, "memory": 4.0 * GIB}
WORKER: Mapping[str, float] = {"CPU": 8.0, "memory": 32.0 * GIB}
GPU_WORKER: Mapping[str, float] = {**WORKER, "GPU": 1.0, "accelerator_type:L4": 1.0}


class Request(NamedTuple):
    """What somebody asked for."""

    method: str
    path: str
    query: str
    authorization: str
    body: bytes


class Reply(NamedTuple):
    """What is answered."""

    status: int = 200
    body: Any = None
    """A text as it is, anything else as JSON."""


@dataclass
class Job:
    """What was submitted, and what became of it."""

    given: Mapping[str, Any]
    status: str = "PENDING"
    message: str = ""
    log: str = ""
    stops: int = 0
    """How often it was asked to end."""


@dataclass
class FakeDashboard:
    """A cluster as it looks from outside; a test may change all of it at any time.

    Attributes:
        address: `http://host:port`.
        token: that it wants; None where it wants none.
        ray_version: of the cluster.
        python_version: of the cluster.
        nodes: what each living node has in all.
        can_grow: whether an autoscaler is there.
        replies: path, or path?query -> what is answered there instead.
        silent: paths where nothing is ever answered.
        on_submit: hears of each job as it is given.
        requests: all that was asked.
        packages: uri's path -> content, of what was sent.
        jobs: submission id -> what is known of it.
    """

    address: str = ""
    token: str | None = None
    ray_version: str = "2.60.0"
    python_version: str = "3.11.9"
    nodes: Sequence[Mapping[str, float]] = (HEAD, WORKER)
    can_grow: bool = False
    replies: dict[str, Reply] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    on_submit: Callable[[str, Job], None] = lambda _name, _job: None
    requests: list[Request] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: Request) -> Reply:
        """What Ray would say."""
        self.requests.append(request)
        path = request.path
        if path in self.silent:
            self.closing.wait()
        for name in (f"{path}?{request.query}", path):
            if name in self.replies:
                return self.replies[name]
        if path == "/api/authentication_mode":  # which anybody may ask
            return Reply(body={"authentication_mode": "token" if self.token else "disabled"})
        if self.token and not request.authorization:
            return Reply(401, "Unauthorized: Missing authentication token")
        if self.token and request.authorization != f"Bearer {self.token}":
            return Reply(403, "Forbidden: Invalid authentication token")
        if path.startswith("/api/packages/"):
            return self._package(request)
        if path.startswith("/api/jobs"):
            return self._job(request)
        return self._fact(path)

    def _fact(self, path: str) -> Reply:
        match path:
            case "/api/version":
                return Reply(
                    body={"version": "4", "ray_version": self.ray_version, "ray_commit": "0"}
                )
            case "/api/v0/cluster_metadata":
                found = {"rayVersion": self.ray_version, "pythonVersion": self.python_version}
                return _wrapped(found)
            case "/api/v0/nodes":
                nodes = [{"state": "ALIVE", "resources_total": dict(node)} for node in self.nodes]
                return _wrapped({"result": {"total": len(nodes), "result": nodes}})
            case "/api/cluster_status":
                kind = "ray.head.default" if self.can_grow else f"node_{HEAD_ID}"
                report = {"nodeTypeMapping": {HEAD_ID: kind}, "legacy": True}
                return _wrapped({"clusterStatus": {"autoscalerReport": report}})
        return Reply(404, "404: Not Found")

    def _package(self, request: Request) -> Reply:
        if request.method == "PUT":
            self.packages[request.path] = request.body
            return Reply()
        known = request.path in self.packages
        return Reply(200) if known else Reply(404, "Package does not exist.")

    def _job(self, request: Request) -> Reply:
        name, _, rest = request.path.removeprefix("/api/jobs").lstrip("/").partition("/")
        if request.method == "POST" and not name:
            given = json.loads(request.body)
            name = str(given["submission_id"])
            if name in self.jobs:
                return Reply(500, f"Job with submission_id {name} already exists.")
            job = self.jobs[name] = Job(given)
            self.on_submit(name, job)
            return Reply(body={"job_id": name, "submission_id": name})
        job = self.jobs.get(name)
        if job is None:
            return Reply(404, f"Job {name} does not exist")
        if rest == "stop":
            was_running = job.status in ("PENDING", "RUNNING")
            job.stops += 1
            job.status = "STOPPED" if was_running else job.status
            return Reply(body={"stopped": was_running})
        if rest == "logs":
            return Reply(body={"logs": job.log})
        return Reply(
            body={"submission_id": name, "status": job.status, "message": job.message, **job.given}
        )


def _wrapped(data: Mapping[str, Any]) -> Reply:
    return Reply(body={"result": True, "msg": "", "data": data})


@contextmanager
def dashboard(**settings: Any) -> Iterator[FakeDashboard]:
    """One that answers while the context lasts; settings are attributes of `FakeDashboard`."""
    made = FakeDashboard(**settings)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            authorization = self.headers.get("Authorization", "")
            asked = Request(self.command, parts.path, parts.query, authorization, body)
            reply = made.answer(asked)
            if made.closing.is_set():
                return
            is_text = isinstance(reply.body, str)
            content = (reply.body if is_text else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "text/plain" if is_text else "application/json")
            self.send_header("Content-Length", str(len(content)))
            if 300 <= reply.status < 400:
                self.send_header("Location", str(reply.body))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_: Any) -> None:
            """Into nowhere."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
