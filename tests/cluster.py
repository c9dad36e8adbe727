"""A Ray of several nodes on one machine, whose processes can be killed one by one or node by node.

Each node is what `ray start` makes of it, in a session of its own: that is how all processes of a
node are found, also those whose parents are gone. Nothing else on the machine is touched.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.core.generated import autoscaler_pb2

from tests.farm import mortal, wait_for

HOST = "127.0.0.1"
START_S = 240.0
STORE_BYTES = 80 << 20
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
    # Else it is on or off as somebody on this machine has made himself a token, or not.
    "RAY_AUTH_MODE": "disabled",
}


def processes_of(session: int) -> list[psutil.Process]:
    """All that live in a session, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
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
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *mortal("TERM"),
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", *arguments),
                    *(f"--node-name={self.name}", "--block", "--disable-usage-stats"),
                    *(f"--object-store-memory={STORE_BYTES}", "--include-log-monitor=false"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *("--dashboard-agent-listen-port=0",),
                ],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def session(self) -> int:
        return self._process.pid

    def require_running(self) -> None:
        assert self._process.poll() is None, self._log.read_text()

    def holds(self, pid: int) -> bool:
        """Whether a process is one of this node's."""
        with suppress(OSError):
            return os.getsid(pid) == self.session
        return False

    def kill(self) -> None:
        """The power fails."""
        kill_session(self.session)
        self._process.wait()


class Cluster:
    """A head without CPUs, and nodes that come and go.

    Args:
        folder: for Ray's sockets and logs; its path must be short.
        environment: of all its processes.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, {**environment, **SETTINGS}
        self._port = _free_port()
        self.address = f"{HOST}:{self._port}"
        self.nodes: list[Node] = []
        self.head = self._start_head()

    def _start_head(self) -> Node:
        return self._start(
            "--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false",
            f"--ray-client-server-port={_free_port()}", "--no-monitor",
        )  # fmt: skip

    def add(self, count: int = 1, num_cpus: int = 1) -> list[Node]:
        """Start nodes side by side; returns when all have joined."""
        wait_for(lambda: self._is_up(self.head), START_S, "a head")
        added = [
            self._start(f"--address={self.address}", f"--num-cpus={num_cpus}") for _ in range(count)
        ]
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
        for node in self.nodes:
            for process in processes_of(node.session):
                with suppress(psutil.Error):
                    if "ray::RenderActor" in " ".join(process.cmdline()):
                        found.append(process)
        return found

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
            return node.name in self._alive()
        except ray.exceptions.RaySystemError:
            return False

    def _alive(self) -> dict[str, Any]:
        infos = self._gcs().get_all_node_info(timeout=5).values()
        return {info.node_name: info for info in infos if info.state == 0}

    def _gcs(self) -> Any:
        return ray._raylet.GcsClient(address=self.address)


@contextmanager
def cluster(environment: Mapping[str, str], num_nodes: int) -> Iterator[Cluster]:
    """A cluster with so many nodes of one CPU, none of whose processes outlives the context."""
    folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))  # sockets' paths are short
    made = Cluster(folder, environment)
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
