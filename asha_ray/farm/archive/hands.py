"""Threads that prepare and finish shows, and may be left behind when an archive ends."""

import queue
import threading
import time
from collections.abc import Callable


class Hands:
    """A few threads that do what they are given, one thing after the other.

    Not a pool of the standard library: its threads keep a process alive until they are done, and
    whoever presses Ctrl-C would wait for three hours of sound to be heard.

    Args:
        name: what they are called.
        on_error: hears what was raised, by whichever thread.
    """

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        self._name, self._on_error = name, on_error
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def grow(self, count: int) -> None:
        """Be so many, or as many as there are already."""
        for number in range(len(self._threads), count):
            name = f"{self._name}-{number}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()

    def give(self, work: Callable[[], None]) -> None:
        """Something to do."""
        self._work.put(work)

    def close(self, patience_s: float) -> None:
        """Let them end once they have done what they were given, and wait for that a while."""
        for _ in self._threads:
            self._work.put(None)
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 (or others would wait for it for ever)
                self._on_error(error)
