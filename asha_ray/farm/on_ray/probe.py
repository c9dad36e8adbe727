"""One call on a worker of a cluster, which is never waited for without end."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asha_ray.errors import FarmError, ResourceError
from asha_ray.farm.on_ray.runtime import own_error, ray_cluster

Answer = TypeVar("Answer")

GPU_SHARE = 0.01
HEAD = "node:__internal_head__"
START_SHARE = 0.6
"""Of the time, for a worker's process to be there: what it does then takes less."""


class Worker:
    """A process on a node, which says when it is there and then does what it is told."""

    def is_there(self) -> None:
        """Answers once it is."""

    def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do something."""
        return function(*arguments)


def on_worker(seconds: float, function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call a function on a worker, on one with a GPU where there are some.

    It takes no CPU, so a node that is at work can hold it. Where there is no node to work on yet,
    a CPU is asked for, so that a cluster that grows does so.

    Args:
        seconds: that all of it may take.
        function: is called with whether Ray has given it a GPU, and then the arguments.
        *arguments: for it.

    Raises:
        ResourceError: if no worker is there in time.
        FarmError: if it has not answered in time, or its process failed.
    """
    ends = time.monotonic() + seconds
    with ray_cluster():
        options, has_gpu = _place()
        where = "a GPU" if has_gpu else "a CPU"
        worker = ray.remote(max_restarts=0, **options)(Worker).remote()
        if not _answers(worker.is_there.remote(), START_SHARE * seconds):
            raise ResourceError(
                f"starting a worker with {where}: none was there in {START_SHARE * seconds:.0f} s; "
                "see in the dashboard whether all are at work, or wait for one that is to join"
            )
        reference = worker.call.remote(function, has_gpu, *arguments)
        left_s = ends - time.monotonic()
        if not _answers(reference, left_s):
            raise FarmError(
                f"looking around on a worker with {where}: it has not answered in {left_s:.0f} s; "
                "see in the dashboard whether its node is overloaded"
            )
        answer: Answer = ray.get(reference)
        return answer


def _place() -> tuple[dict[str, Any], bool]:
    """Options for a node to work on, and whether it has a GPU."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    able = [node for node in nodes if node["Resources"].get("CPU", 0) >= 1]
    if not able:
        return {"num_cpus": 1}, False
    best = max(
        able, key=lambda node: (node["Resources"].get("GPU", 0), HEAD not in node["Resources"])
    )
    has_gpu = best["Resources"].get("GPU", 0) > 0
    there = NodeAffinitySchedulingStrategy(best["NodeID"], soft=False)
    share = GPU_SHARE if has_gpu else 0
    return {"num_cpus": 0, "num_gpus": share, "scheduling_strategy": there}, has_gpu


def _answers(reference: Any, seconds: float) -> bool:
    """Whether a call is answered in time.

    Raises:
        FarmError: if it failed, or one of ours that it raised.
    """
    try:
        done, _ = ray.wait([reference], timeout=max(0.0, seconds))
        if done:
            ray.get(reference)
    except RayTaskError as error:
        raise own_error(error) from error
    except RayError as error:
        words = " ".join(str(error).split())[:300]
        raise FarmError(
            f"starting a worker: {words}; see the log of its node, in the dashboard"
        ) from error
    return bool(done)
