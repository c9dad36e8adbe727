"""Ways to spread blocks over a machine's cores: functions that do what the builtin `map` does."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Protocol):
    """The builtin `map`, or anything like it: lazy, in order, few items in flight at once."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Result]:
        """The results of `function` for each of `items`."""


@dataclass(frozen=True)
class Spread:
    """How a track's analysis is spread; by itself, one thing after the other.

    Attributes:
        blocks: for many small items: blocks of sound that are measured.
        parts: for few large ones: parts of a track that are separated.
    """

    blocks: OrderedMap = map
    parts: OrderedMap = map


def map_in_threads(num_threads: int) -> OrderedMap:
    """A map that works in threads while the caller's own thread fetches the next item.

    NumPy lets go of the interpreter's lock in all that takes long here. At most `num_threads + 1`
    items are held.

    >>> list(map_in_threads(2)(abs, [-1, -2, -3]))
    [1, 2, 3]
    """

    def ordered(function: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(num_threads, thread_name_prefix="asha-audio") as pool:
            try:
                for item in items:
                    pending.append(pool.submit(function, item))
                    if len(pending) > num_threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    return ordered
