"""Starting, joining and leaving Ray, and its errors in our words."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asha_ray.errors import AshaError, FarmError

# Read by Ray when it is first imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# How often Ray Train looks at its workers: by its own two seconds a training ends 5 s late.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")

import ray
from ray.exceptions import RayError, RayTaskError

_LOGGER = logging.getLogger(__name__)

HEAD_PATIENCE_S = 30.0
"""Without a cluster's head for so long, work on it ends. Ray itself ends the process after 60."""
HEAD_TIMEOUT_S = 2.0
POLL_S = 1.0


class Head:
    """Whether a cluster's head can be reached, by knocking at its door.

    Ray's own calls to a head that is gone block, and end the process after a minute with words
    that help nobody. So whoever would make such a call asks here just before.

    Args:
        address: `host:port`.
        clock: seconds.
        is_own: whether this process has started it, for itself.
    """

    def __init__(
        self,
        address: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_own: bool = False,
    ) -> None:
        self.address, self.is_own, self._clock = address, is_own, clock
        self._away_since: float | None = None
        self._knocked_at = clock()

    def is_there(self) -> bool:
        """Whether it answers."""
        now = self._clock()
        if self._away_since is not None and now - self._knocked_at < HEAD_TIMEOUT_S:
            return False  # a door behind which nothing is takes its time
        if self._answers():
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        self._knocked_at = self._clock()  # after it: a knock in vain takes its time
        return self._away_since is None

    def require(self) -> None:
        """Fail once it has been away for too long.

        Raises:
            FarmError: if so.
        """
        if self.is_there() or self._away_since is None:
            return
        away_s = self._clock() - self._away_since
        if away_s >= HEAD_PATIENCE_S:
            raise FarmError(
                f"working on the Ray cluster at {self.address}: its head has not answered for "
                f"{away_s:.0f} s; what is finished is kept: start a cluster anew, and run the same "
                "command with its RAY_ADDRESS"
            )

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), HEAD_TIMEOUT_S):
                return True
        except OSError:
            return False


_heads: list[Head] = []
"""Of the cluster that this process works on."""


@contextmanager
def _watched(*, is_own: bool = False) -> Iterator[None]:
    head = Head(str(ray.get_runtime_context().gcs_address), is_own=is_own)
    _heads.append(head)
    try:
        yield
    finally:
        _heads.remove(head)


def is_head_there() -> bool:
    """Whether calls that the head must answer may be made."""
    return all(head.is_there() for head in _heads)


def is_own_ray() -> bool:
    """Whether this process has started Ray for itself, so that nobody else uses it."""
    return any(head.is_own for head in _heads)


def require_head() -> None:
    """Fail if the cluster's head has been away for too long.

    Raises:
        FarmError: if so.
    """
    for head in _heads:
        head.require()


@contextmanager
def ray_cluster(*, dashboard: bool = False) -> Iterator[None]:
    """Join the Ray that is there (`RAY_ADDRESS`, or one already joined), or run one of our own.

    Args:
        dashboard: whether a Ray of our own has one; Ray Train's log is noisy without.

    Raises:
        FarmError: if Ray cannot be joined or started.
    """
    if ray.is_initialized():
        with _watched():
            yield
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = (
        {} if address else {"include_dashboard": dashboard, "object_store_memory": _store_bytes()}
    )
    _keep_off_stdout()
    try:
        with _signals_kept():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **options,
            )
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"joining Ray at {address}" if address else "starting a local Ray"
        remedy = "check RAY_ADDRESS" if address else "or use --executor serial"
        raise FarmError(f"{where}: {error}; {remedy}") from error
    try:
        with _watched(is_own=not address):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave it to whoever started us what a signal does: Ray would abort the process at SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            if handler is not None:  # else it is not Python's
                signal.signal(kind, handler)


def _keep_off_stdout() -> None:
    """Let Ray log what it else prints on stdout, which is for results, when a worker is lost.

    It does that whatever `log_to_driver` says, and looks the function up by this name.
    """

    def log(data: Mapping[str, Any], **_: Any) -> None:
        _LOGGER.info("%s", "\n".join(data["lines"]))

    ray._private.worker.print_to_stdstream = log  # noqa: SLF001 (there is no public way)


def _store_bytes() -> int:
    """Frames never go through the object store; only training images do, and they may spill."""
    import psutil

    return min(4 << 30, max(256 << 20, psutil.virtual_memory().available // 6))


def result_of(reference: Any, end: threading.Event | None = None) -> Any:
    """What a Ray task returned, its own expected errors raised as themselves.

    Args:
        reference: to what it returns.
        end: once this is set, it is waited for no more.

    Raises:
        FarmError: if the task or its worker failed in a way nobody expected, nobody waits for it
            any more, or the cluster's head is gone.
    """
    try:
        while not ray.wait([reference], timeout=POLL_S)[0]:
            require_head()
            if end is not None and end.is_set():
                raise FarmError("running a task on Ray: it was stopped")
        return ray.get(reference)
    except RayTaskError as error:
        raise own_error(error) from error
    except RayError as error:
        raise FarmError(f"running a task on Ray: {error}; run the command again") from error


def own_error(error: RayTaskError) -> AshaError:
    """The expected error behind a Ray task's failure, or a FarmError that tells what it was."""
    cause = error.cause
    if isinstance(cause, AshaError):
        return cause
    return FarmError(f"running a task on Ray: {cause!r}; --debug shows where")


def await_head() -> None:
    """Wait for the cluster's head, where it is away.

    Raises:
        FarmError: if that takes too long.
    """
    while not is_head_there():
        require_head()
        time.sleep(POLL_S)


def num_devices(kind: str) -> float:
    """How much the cluster has of `CPU` or `GPU` in all."""
    await_head()
    return float(ray.cluster_resources().get(kind, 0))


def is_one_machine() -> bool:
    """Whether the cluster is this machine and no other."""
    await_head()
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return alive == [ray.get_runtime_context().get_node_id()]


def is_node_alive(node: str) -> bool:
    """Whether Ray still counts on a node, by its id."""
    return any(found["Alive"] for found in ray.nodes() if found["NodeID"] == node)


def draining_nodes() -> dict[str, float]:
    """Nodes that are going away, by id, with the seconds they still have."""
    # Ray has no public word for it; its own Train asks in this way.
    deadlines: dict[str, int] = ray._private.state.state.get_draining_nodes()  # noqa: SLF001
    return {
        node: max(0.0, deadline_ms / 1000 - time.time()) if deadline_ms else float("inf")
        for node, deadline_ms in deadlines.items()
    }
