"""Starting, joining and leaving Ray, and its errors in our words."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asha_ray.errors import AshaError, FarmError, ResourceError

# Read by Ray when it is first imported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# How often Ray Train looks at its workers: by its own two seconds a training ends 5 s late.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")

import ray
from ray.exceptions import RayError, RayTaskError


@contextmanager
def ray_cluster(*, dashboard: bool = False) -> Iterator[None]:
    """Join the Ray that is there (`RAY_ADDRESS`, or one already joined), or run one of our own.

    Args:
        dashboard: whether a Ray of our own has one; Ray Train's log is noisy without.

    Raises:
        FarmError: if Ray cannot be joined or started.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = (
        {} if address else {"include_dashboard": dashboard, "object_store_memory": _store_bytes()}
    )
    try:
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
        yield
    finally:
        ray.shutdown()


def _store_bytes() -> int:
    """Frames never go through the object store; only training images do, and they may spill."""
    import psutil

    return min(4 << 30, max(256 << 20, psutil.virtual_memory().available // 6))


def result_of(reference: Any) -> Any:
    """What a Ray task returned, its own expected errors raised as themselves.

    Raises:
        FarmError: if the task or its worker failed in a way nobody expected.
    """
    try:
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


def num_devices(kind: str) -> float:
    """How much the cluster has of `CPU` or `GPU` in all."""
    return float(ray.cluster_resources().get(kind, 0))


def is_one_machine() -> bool:
    """Whether the cluster is this machine and no other."""
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return alive == [ray.get_runtime_context().get_node_id()]


def require_cpu() -> None:
    """Refuse a cluster that can hold no worker.

    Raises:
        ResourceError: if it has no CPU at all.
    """
    if num_devices("CPU") < 1:
        raise ResourceError("using the Ray cluster: it has no CPU to work on; add a node with some")


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
