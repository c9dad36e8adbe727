"""An `OrderedMap` over Ray tasks: lazy, in order, and a lost worker costs one item."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import ray

from asha_ray.audio.parallel import Item, OrderedMap, Result, map_in_threads
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.on_ray.runtime import result_of

MAX_RETRIES = 10
"""Workers that may be lost under one item before the cluster is blamed."""


def map_on_ray(at_once: int, few: int = 0, num_gpus: float = 0) -> OrderedMap:
    """A map over tasks, so many at once and one more that waits.

    Tasks reserve nothing: decoders hold all CPUs of a small cluster until they have something to
    decode, and that waits for these. They are spread over the nodes. A task whose worker dies is
    run again elsewhere, alone; one that fails by itself fails the map.

    Args:
        at_once: tasks; a cluster's CPUs, or its GPUs where each takes one.
        few: so many items or fewer are done in this process instead, in threads: where an item
            costs less than a new process takes to import its libraries.
        num_gpus: that each task takes.
    """

    def ordered(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        waiting = iter(items)
        first = list(islice(waiting, few + 1)) if few else []
        if first and len(first) <= few:
            return map_in_threads(cpu_threads())(function, first)
        return _over_tasks(function, chain(first, waiting), at_once + 1, num_gpus)

    return ordered


def _over_tasks(
    function: Callable[[Item], Result],
    items: Iterator[Item],
    num_in_flight: int,
    num_gpus: float,
) -> Iterator[Result]:
    options = {"num_cpus": 0, "num_gpus": num_gpus, "max_retries": MAX_RETRIES}
    task = ray.remote(**options, scheduling_strategy="SPREAD")(_call)
    pending: deque[Any] = deque()
    try:
        for item in items:
            pending.append(task.remote(function, item))
            if len(pending) >= num_in_flight:
                yield result_of(pending.popleft())
        while pending:
            yield result_of(pending.popleft())
    finally:
        if ray.is_initialized():  # else cancelling would start a Ray of its own
            for reference in pending:
                ray.cancel(reference)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)
