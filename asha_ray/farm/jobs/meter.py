"""What a job has cost so far: the hours of what its workers hold, times what an hour costs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from asha_ray.spec import Prices
from asha_ray.storage.journal import number

HOUR_S = 3600.0


class Meter:
    """Adds up worker time and its price, as workers come and go.

    Args:
        prices: what an hour costs; None counts time alone.
        before: what the heartbeat of an earlier attempt says.
        clock: seconds.

    Attributes:
        gpu_s: GPU seconds held so far, earlier attempts' too.
        cpu_s: CPU seconds held so far by workers without a GPU.
    """

    def __init__(
        self,
        prices: Prices | None,
        before: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prices, self._clock = prices, clock
        self.gpu_s = number(before or {}, "gpu_s")
        self.cpu_s = number(before or {}, "cpu_s")
        self._num_workers, self._gpus, self._cpus = 0, 0.0, 0.0
        self._since = clock()

    def hear(self, facts: Mapping[str, Any]) -> None:
        """Facts a job tells: `workers` that it holds now, and what a `worker` takes of a node."""
        self.count()
        if "worker" in facts:
            takes = facts["worker"]
            self._gpus, self._cpus = float(takes.get("GPU", 0)), float(takes.get("CPU", 0))
        if "workers" in facts:
            self._num_workers = int(facts["workers"])

    def count(self) -> None:
        """Count the time until now."""
        now = self._clock()
        seconds, self._since = now - self._since, now
        if self._gpus:
            self.gpu_s += seconds * self._num_workers * self._gpus
        else:
            self.cpu_s += seconds * self._num_workers * self._cpus

    @property
    def cost(self) -> float | None:
        """The price so far; None where nobody said what an hour costs."""
        if self._prices is None:
            return None
        hours = self.gpu_s * self._prices.gpu_hour + self.cpu_s * self._prices.cpu_hour
        return hours / HOUR_S
