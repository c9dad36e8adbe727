"""One end of a job, however many ways there are to wish it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WISH = signal.SIGUSR1
"""What a job's watcher sends to its main thread."""
TOLD = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Turns the watcher's wish and a cluster's signal, in any order, into one KeyboardInterrupt.

    A job that is cancelled hears of it twice: by storage and by its cluster. The second word must
    not disturb the putting away that the first has begun. Further signals do what they did before.
    """

    def __init__(self) -> None:
        self._begun = ""
        self._before: dict[int, Any] = {}

    def wish(self) -> None:
        """Let the main thread end what it does; from another thread."""
        main = threading.main_thread().ident
        assert main is not None  # noqa: S101 (it runs)
        signal.pthread_kill(main, WISH)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear wishes and signals while the context lasts; of the main thread."""
        self._before = {kind: signal.getsignal(kind) for kind in (*TOLD, WISH)}
        for kind in self._before:
            signal.signal(kind, self._hear)
        try:
            yield
        finally:
            for kind, handler in self._before.items():
                if signal.getsignal(kind) == self._hear:
                    signal.signal(kind, handler)
            if signal.getsignal(WISH) == signal.SIG_DFL:  # a late wish must not kill
                signal.signal(WISH, signal.SIG_IGN)

    def _hear(self, kind: int, frame: Any) -> None:
        if kind == WISH:
            if not self._begun:
                self._begun = "wish"
                raise KeyboardInterrupt
            return
        if self._begun == "wish":
            self._begun = "signal"
            return
        self._begun = "signal"
        handler: Callable[[int, Any], None] | Any = self._before[kind]
        if callable(handler):
            handler(kind, frame)
            return
        raise KeyboardInterrupt
