"""A place on a disk and one in a bucket, an S3 server, a broken one, and time that costs none."""

import copy
import errno
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from botocore.hooks import HierarchicalEmitter
from moto.server import ThreadedMotoServer

from asha_ray.storage import Storage, base, patience, s3, storage_of

KEY_ID, SECRET = "AKIDNEVERSHOWN", "secret/never+shown"
LOADER, HANDLERS = botocore.loaders.create_loader(), HierarchicalEmitter()
botocore.session.Session(event_hooks=HANDLERS)  # registers its own
PART_BYTES = 8 << 20
"""boto3 sends larger files in parts."""


class FakeClock:
    """Time passes when somebody sleeps, and at no other time."""

    def __init__(self) -> None:
        self.now, self.sleeps = 0.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(patience, "CLOCK", clock)
    return clock


@dataclass
class Place:
    """An empty folder or prefix, its storage, and how an upload can be made to fail half way."""

    root: str
    storage: Storage
    fail_uploads: Callable[[], Any]


@pytest.fixture(scope="session")
def s3_server():
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _quick_session():
    """Reading S3's description and registering handlers takes longer than most tests."""
    session = botocore.session.Session(
        event_hooks=copy.copy(HANDLERS), include_builtin_handlers=False
    )
    session.register_component("data_loader", LOADER)
    return boto3.Session(botocore_session=session)


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An AWS environment that is wholly this test's; returns what sets the endpoint."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))

    def forget():
        s3._client.cache_clear()
        base._s3.cache_clear()

    def use(endpoint):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        # botocore's own pauses are real, and not what is tested here.
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=5)
        monkeypatch.setattr(s3, "_config", lambda: once)
        monkeypatch.setattr(s3, "_new_session", _quick_session)
        forget()

    yield use
    if s3._client.cache_info().currsize:
        s3._client().close()
    forget()


@pytest.fixture
def bucket(aws, s3_server):
    aws(s3_server)
    name = f"bucket-{uuid.uuid4()}"
    s3._client().create_bucket(Bucket=name)
    return f"s3://{name}"


def _failing_disk(monkeypatch):
    def copy_half(source, target):
        with open(source, "rb") as file:  # noqa: PTH123 (as shutil does)
            half = file.read()[: -PART_BYTES // 2]
        with open(target, "wb") as file:  # noqa: PTH123
            file.write(half)
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", copy_half)


def _failing_network(monkeypatch):
    def refuse_second_part(params, **_):
        if "partNumber=2" in params["url"] or params["query_string"].get("partNumber") == 2:
            raise EndpointConnectionError(endpoint_url="http://gone")

    s3._client().meta.events.register("before-call.s3.UploadPart", refuse_second_part)


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path, monkeypatch):
    if request.param == "local":
        root = tmp_path / "place"
        return Place(str(root), storage_of(str(root)), lambda: _failing_disk(monkeypatch))
    root = f"{request.getfixturevalue('bucket')}/place"
    return Place(root, storage_of(root), lambda: _failing_network(monkeypatch))


class Scripted(BaseHTTPRequestHandler):
    """An S3 server that answers what a test says, or all well where that is None."""

    protocol_version = "HTTP/1.1"  # it says 100 Continue, which boto3 waits for a second
    seen: list[str]
    script: Callable[["Scripted"], "tuple[int, str] | None"]

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).seen.append(f"{self.command} {self.path}")
        said = type(self).script(self)
        if said is None:
            self._send(200, b"content" if self.command == "GET" else b"")
        elif said[0] == -1:
            pass  # the script has answered
        elif said[0] == 0:
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            status, error = said
            self._send(status, f"<Error>{error}</Error>".encode())

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("ETag", '"9a0364b9e99bb480dd25e1f0284c8555"')
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="session")
def scripted_server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def scripted(aws, scripted_server) -> Callable[..., list[str]]:
    """Sets what the server answers; what it returns is the list of requests that have come.

    A script gets the handler and returns None, or status and XML, status 0 for a reset, or -1
    where it has answered itself.
    """
    # Each connection has the handler of the test that opened it: a late one disturbs no other.
    kind = type("Moody", (Scripted,), {"seen": []})

    def start(script, user=""):
        kind.script = staticmethod(script)
        scripted_server.RequestHandlerClass = kind
        aws(f"http://{user}127.0.0.1:{scripted_server.server_address[1]}")
        return kind.seen

    return start


def operations(storage, uri, tmp_path) -> dict[str, Callable[[], Any]]:
    """Everything that a storage can do, each as a call."""
    source = tmp_path / "source"
    source.write_bytes(b"1")
    return {
        "read": lambda: storage.read(uri),
        "size": lambda: storage.size(uri),
        "version": lambda: storage.version(uri),
        "list": lambda: list(storage.list(uri)),
        "write": lambda: storage.write(uri, b"1"),
        "upload": lambda: storage.upload(source, uri),
        "download": lambda: storage.download(uri, tmp_path / "x"),
        "local_copy": lambda: storage.local_copy(uri).__enter__(),
        "delete": lambda: storage.delete(uri),
        "check_writable": lambda: storage.check_writable(uri),
        "unfinished": lambda: list(storage.unfinished(uri)),
        "discard": lambda: storage.discard(base.Unfinished(uri, 0, "upload")),
    }


OPERATIONS = (
    "read", "size", "version", "list", "write", "upload", "download", "local_copy", "delete",
    "check_writable", "unfinished", "discard",
)  # fmt: skip
