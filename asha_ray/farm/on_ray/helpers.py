"""Warm processes on a cluster that do what is beside rendering, whatever thread asks.

Tasks would do, but on a node of few CPUs Ray ends a worker a second after its task, and the next
one imports torch and librosa anew: fifteen CPU seconds for each short show.
"""

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from asha_ray.audio.parallel import Item, Result
from asha_ray.errors import FarmError
from asha_ray.farm.on_ray.ray_map import MAX_RETRIES
from asha_ray.farm.on_ray.runtime import is_head_there, result_of
from asha_ray.progress import NullProgress, Progress, Stop
from asha_ray.scratch import sweep, system_folder

POLL_S = 0.5


class _Helper:
    """Does one thing after the other, in a process of its own."""

    def do(self, function: Callable[[Item, Progress], Result], item: Item) -> Result:
        """Do it."""
        sweep(system_folder())  # what a killed process has left on this node
        return function(item, NullProgress())


class Helpers:
    """Processes that are made as they are needed, spread over the nodes, and reserve nothing.

    Decoders hold what there is of a cluster, and what is done here is what they wait for.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free: list[Any] = []
        self._all: list[Any] = []

    def call(
        self, function: Callable[[Item, Progress], Result], item: Item, stop: Stop, most: int
    ) -> Result:
        """Have something done by one of `most` processes; one that is lost costs another try.

        Raises:
            FarmError: if it is stopped meanwhile, or loses process after process.
        """
        for _ in range(MAX_RETRIES + 1):
            helper = self._take(stop, most)
            try:
                result: Result = result_of(helper.do.remote(function, item), stop.end)
            except FarmError as error:
                if isinstance(error.__cause__, RayActorError):
                    self._drop(helper)
                    continue
                self._give_back(helper)
                raise
            except BaseException:
                self._give_back(helper)
                raise
            self._give_back(helper)
            return result
        raise FarmError(
            f"working on the Ray cluster: {MAX_RETRIES + 1} processes were lost over one thing; "
            "look for what ends them, often too little memory"
        )

    def close(self) -> None:
        """End them all."""
        with self._changed:
            for helper in self._all:
                if is_head_there():  # else it would block; they end with their driver
                    ray.kill(helper)
            self._all, self._free = [], []

    def _take(self, stop: Stop, most: int) -> Any:
        with self._changed:
            while not self._free:
                stop.advance()
                if len(self._all) < most:
                    kind = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy="SPREAD")(
                        _Helper
                    )
                    helper = kind.remote()
                    self._all.append(helper)
                    return helper
                self._changed.wait(POLL_S)
            return self._free.pop()

    def _give_back(self, helper: Any) -> None:
        with self._changed:
            if helper in self._all:
                self._free.append(helper)
            self._changed.notify()

    def _drop(self, helper: Any) -> None:
        with self._changed:
            if helper in self._all:
                self._all.remove(helper)
                if is_head_there():  # one that cannot be reached may be at it still
                    ray.kill(helper)
            self._changed.notify()
