"""How long work tells how far it is: a protocol, and a sink that says nothing.

Library code only ever calls a `Progress`; the command line draws one.
"""

import threading
from typing import Any, Protocol

from asha_ray.errors import FarmError


class Progress(Protocol):
    """Receives what a long piece of work has to say. Calls are cheap and may be frequent."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage of `total` units (unknown if None); a stage before it has ended."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """`count` more units of the current stage are done; `detail` is a word on the latest."""

    def note(self, message: str) -> None:
        """Tell a person something worth knowing once."""

    def tell(self, **facts: Any) -> None:
        """Facts for programs, by name: a render's id, how many chunks were reused; the last counts.

        What is told is plain data.
        """


class NullProgress:
    """A `Progress` that says nothing."""

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Say nothing."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def tell(self, **facts: Any) -> None:
        """Say nothing."""


class Stop(NullProgress):
    """A progress by which whoever works is told that it is not wanted any more.

    Attributes:
        end: set to stop it.
    """

    def __init__(self) -> None:
        self.end = threading.Event()

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:  # noqa: ARG002
        """Look whether to go on."""
        self.advance()

    def advance(self, count: int = 1, detail: str = "") -> None:  # noqa: ARG002
        """Look whether to go on.

        Raises:
            FarmError: if not.
        """
        if self.end.is_set():
            raise FarmError("working: it was stopped")


class SharedProgress:
    """A `Progress` that several threads may call.

    Args:
        inner: hears all of it, one thing after the other.
    """

    def __init__(self, inner: Progress) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """Begin a stage."""
        with self._lock:
            self._inner.stage(name, total, unit)

    def advance(self, count: int = 1, detail: str = "") -> None:
        """So many more units are done."""
        with self._lock:
            self._inner.advance(count, detail)

    def note(self, message: str) -> None:
        """Tell a person."""
        with self._lock:
            self._inner.note(message)

    def tell(self, **facts: Any) -> None:
        """Tell a program."""
        with self._lock:
            self._inner.tell(**facts)
