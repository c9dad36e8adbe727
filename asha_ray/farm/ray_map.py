"""An `OrderedMap` over Ray tasks: lazy, in order, and a lost worker costs one item."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import ray

from asha_ray.audio.parallel import Item, OrderedMap, Result, map_in_threads
from asha_ray.farm.plan import cpu_threads
from asha_ray.farm.ray_runtime import result_of

MAX_RETRIES = 10
"""Workers that may be lost under one item before the cluster is blamed."""
MAX_IN_FLIGHT = 64
"""An item holds some MB; more of them at once fill the object store and speed up nothing."""


def map_on_ray(num_cpus: int, few: int = 0) -> OrderedMap:
    """A map over tasks, about `num_cpus` at once.

    Tasks reserve nothing: decoders hold all CPUs of a small cluster until they have something to
    decode, and that waits for these. They are spread over the nodes. A task whose worker dies is
    run again elsewhere, alone; one that fails by itself fails the map.

    Args:
        num_cpus: the cluster's CPUs.
        few: so many items or fewer are done in this process instead, in threads: where an item
            costs less than a new process takes to import its libraries.
    """

    def ordered(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        waiting = iter(items)
        first = list(islice(waiting, few + 1)) if few else []
        if first and len(first) <= few:
            return map_in_threads(cpu_threads())(function, first)
        return _over_tasks(function, chain(first, waiting), min(MAX_IN_FLIGHT, num_cpus + 1))

    return ordered


def _over_tasks(
    function: Callable[[Item], Result], items: Iterator[Item], num_in_flight: int
) -> Iterator[Result]:
    task = ray.remote(num_cpus=0, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")(_call)
    pending: deque[Any] = deque()
    try:
        for item in items:
            pending.append(task.remote(function, item))
            if len(pending) >= num_in_flight:
                yield result_of(pending.popleft())
        while pending:
            yield result_of(pending.popleft())
    finally:
        for reference in pending:
            ray.cancel(reference)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
