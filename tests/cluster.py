"""A Ray of several nodes on one machine, whose processes can be killed one by one or node by node.

Each node is what `ray start` makes of it, in a session of its own: that is how all processes of a
node are found, also those whose parents are gone. Nothing else on the machine is touched.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import ray
import yaml
from ray.core.generated import autoscaler_pb2

from tests.farm import wait_for
from tests.warm import become_node, fork_server

HOST = "127.0.0.1"
START_S = 240.0
STORE_BYTES = 80 << 20
FAKE_HEAD, FAKE_HEAD_TYPE = f"{'f' * 51}00000", "ray.head.default"
"""What Ray's autoscaler for tests takes for its head."""
PORTS = range(20_000, 30_000)
"""Below those that a system hands out by itself: a head dies if its port is taken, and any process
may open a connection between the choice of a port and its use."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node that does not answer is dead after five seconds instead of fifteen.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
    # Workers give way to all else by default; on a busy machine they would hardly run.
    "RAY_worker_niceness": "0",
    # Each node would start workers that no driver here can use, since their environments differ.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    # Else it is on or off as somebody on this machine has made himself a token, or not.
    "RAY_AUTH_MODE": "disabled",
}


def processes_of(session: int) -> list[psutil.Process]:
    """All that live in a session, whoever their parents are."""
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def kill_session(session: int) -> None:
    """SIGKILL to all of a session at once, until none is left."""

    def none_is_left() -> bool:
        processes = processes_of(session)
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)  # or one would see another die, and tell
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        return not processes

    wait_for(none_is_left, 60, f"the end of session {session}")


class Node:
    """One `ray start`, and all that it has started."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = f"n{secrets.token_hex(4)}"
        self._log = log
        command = [
            *("start", *arguments),
            *(f"--node-name={self.name}", "--block", "--disable-usage-stats"),
            *(f"--object-store-memory={STORE_BYTES}", "--include-log-monitor=false"),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        ]
        self._process: Any = fork_server().Process(
            target=become_node, args=(command, dict(environment), log), daemon=True
        )
        self._process.start()
        # From here on it can be told from its server, with all that it starts.
        wait_for(lambda: not self._process.is_alive() or self._is_apart(), 60, "a process")

    @property
    def session(self) -> int:
        return int(self._process.pid)

    def _is_apart(self) -> bool:
        with suppress(ProcessLookupError):
            return os.getsid(self.session) == self.session
        return False

    def require_running(self) -> None:
        assert self._process.is_alive(), self._log.read_text()

    def holds(self, pid: int) -> bool:
        """Whether a process is one of this node's."""
        with suppress(OSError):
            return os.getsid(pid) == self.session
        return False

    def kill(self) -> None:
        """The power fails."""
        kill_session(self.session)
        self._process.join()


class Cluster:
    """A head without CPUs, and nodes that come and go.

    Args:
        folder: for Ray's sockets and logs; its path must be short.
        environment: of all its processes.
        dashboard: whether it has one, which takes jobs.
        token: that opens it and its dashboard, which it must have then; it cannot be drained.
        head_cpus: CPUs of the head.
        most_added: nodes of one CPU that an autoscaler adds and takes away; no autoscaler if 0.

    Attributes:
        address: for drivers to join.
        dashboard: its `http://host:port`; empty where it has none.
        token_file: holds the token; None where there is none.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        dashboard: bool = False,
        token: str | None = None,
        head_cpus: int = 0,
        most_added: int = 0,
    ) -> None:
        assert dashboard or token is None, "who asks a cluster with a token asks its dashboard"
        self._folder, self._environment = folder, {**environment, **SETTINGS}
        self._token, self._head_cpus = token, head_cpus
        self.token_file = folder / "token" if token else None
        if self.token_file:
            self.token_file.touch(mode=0o600)
            self.token_file.write_text(f"{token}\n")
            self._environment |= {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            }
        self._port = _free_port()
        self._autoscaler = self._make_autoscaler(most_added) if most_added else ("--no-monitor",)
        self.address = f"{HOST}:{self._port}"
        self.dashboard = f"http://{HOST}:{_free_port()}" if dashboard else ""
        self.nodes: list[Node] = []
        self.head = self._start_head()

    def _start_head(self) -> Node:
        if self.dashboard:
            port = self.dashboard.rpartition(":")[2]
            seen = (
                "--include-dashboard=true", f"--dashboard-host={HOST}", f"--dashboard-port={port}"
            )  # fmt: skip
        else:
            seen = ("--include-dashboard=false",)
        return self._start(
            "--head", f"--port={self._port}", f"--num-cpus={self._head_cpus}", *seen,
            f"--ray-client-server-port={_free_port()}", *self._autoscaler,
        )  # fmt: skip

    def _make_autoscaler(self, most_added: int) -> tuple[str, ...]:
        """Ray's own for tests: what it adds are processes here, in the head's session."""
        path = self._folder / "autoscaler.yaml"
        path.write_text(yaml.safe_dump(autoscaling(f"{HOST}:{self._port}", most_added)))
        self._environment |= {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD,
        }
        return (f"--autoscaling-config={path}",)

    def await_head(self) -> None:
        """Returns when the head is up."""
        wait_for(lambda: self._is_up(self.head), START_S, "a head")

    def add(self, count: int = 1, num_cpus: int = 1, num_gpus: int = 0) -> list[Node]:
        """Start nodes side by side; returns when all have joined."""
        self.await_head()
        given = (f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}")
        added = [self._start(f"--address={self.address}", *given) for _ in range(count)]
        self.nodes += added
        for node in added:
            wait_for(lambda node=node: self._is_up(node), START_S, "a node")
        return added

    def fill(self, count: int) -> None:
        """Have so many nodes."""
        self.add(count - len(self.nodes))

    def actors(self) -> list[psutil.Process]:
        """Processes that render, or are about to."""
        found = []
        for node in (self.head, *self.nodes):
            for process in processes_of(node.session):
                with suppress(psutil.Error):
                    if "ray::RenderActor" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def working(self) -> list[psutil.Process]:
        """Those of them that have a chunk in hand."""
        found = []
        for actor in self.actors():
            with suppress(psutil.Error):
                if "ray::RenderActor.render" in " ".join(actor.cmdline()):
                    found.append(actor)
        return found

    def num_nodes(self) -> int:
        """That Ray knows of, the head among them."""
        return len(self._infos())

    def metrics(self) -> str:
        """What all nodes export for Prometheus."""
        found = []
        for info in self._infos():
            address = f"http://{info.node_manager_address}:{info.metrics_export_port}/metrics"
            with suppress(OSError), urlopen(address, timeout=5) as answer:
                found.append(answer.read().decode())
        return "\n".join(found)

    def node_of(self, pid: int) -> Node:
        """The node that a process belongs to."""
        return next(node for node in (self.head, *self.nodes) if node.holds(pid))

    def kill(self, node: Node) -> None:
        """Kill a node and all its processes; returns at once, before Ray knows."""
        node.kill()
        self.nodes.remove(node)

    def drain(self, node: Node, deadline_s: float) -> None:
        """What a cloud does before it takes a machine away."""
        infos = self._alive()
        accepted, why = self._gcs().drain_node(
            infos[node.name].node_id.hex(),
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "a test",
            int((time.time() + deadline_s) * 1000),
        )
        assert accepted, why

    def close(self) -> None:
        """Kill all that is left."""
        for node in (*self.nodes, self.head):
            node.kill()
        self.nodes = []

    def _start(self, *arguments: str) -> Node:
        # Nodes that begin at once in one folder take each other's names there.
        folder = self._folder / secrets.token_hex(2)
        folder.mkdir()
        places = (f"--node-ip-address={HOST}", f"--temp-dir={folder}")
        return Node([*arguments, *places], self._environment, folder / "start.log")

    def _is_up(self, node: Node) -> bool:
        node.require_running()
        try:
            return node.name in (self._seen() if self.dashboard else self._alive())
        except (ray.exceptions.RaySystemError, urllib.error.URLError, TimeoutError):
            return False

    def _seen(self) -> set[str]:
        """The living nodes' names, as the dashboard has them; it opens with any cluster's token."""
        request = urllib.request.Request(
            f"{self.dashboard}/api/v0/nodes?detail=1",
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
        return {node["node_name"] for node in nodes if node["state"] == "ALIVE"}

    def _alive(self) -> dict[str, Any]:
        return {info.node_name: info for info in self._infos()}

    def _infos(self) -> list[Any]:
        infos = self._gcs().get_all_node_info(timeout=5).values()
        return [info for info in infos if info.state == 0]

    def _gcs(self) -> Any:
        return ray._raylet.GcsClient(address=self.address)


def autoscaling(address: str, most_added: int) -> dict[str, Any]:
    """What the autoscaler of a cluster reads."""
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray", "worker_start_ray")
    lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter")
    return {
        **{name: {} for name in ("file_mounts", "auth", "docker")},
        **{name: [] for name in lists},
        **{f"{name}_commands": [] for name in (*commands, *starts)},
        "cluster_name": "test",
        "max_workers": most_added,
        "upscaling_speed": most_added,
        "idle_timeout_minutes": 0.05,
        "file_mounts_sync_continuously": False,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_TYPE,
        "available_node_types": {
            FAKE_HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "object_store_memory": STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most_added,
            },
        },
    }


@contextmanager
def cluster(
    environment: Mapping[str, str], num_nodes: int, *, dashboard: bool = False, **options: Any
) -> Iterator[Cluster]:
    """A cluster with so many nodes of one CPU, none of whose processes outlives the context.

    Args:
        environment: of all its processes.
        num_nodes: that are there at once.
        dashboard: whether it has one.
        **options: see `Cluster`.
    """
    folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))  # sockets' paths are short
    made = Cluster(folder, environment, dashboard=dashboard, **options)
    try:
        made.add(num_nodes)
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as found, suppress(OSError):
            found.bind((HOST, port))
            return port
