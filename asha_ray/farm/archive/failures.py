"""What becomes of a show that fails: another try, a place where a person finds it, or the end."""

import threading
from enum import Enum

from asha_ray.errors import AshaError, FarmError, InputError
from asha_ray.farm.archive.planner import NoRoomError
from asha_ray.farm.archive.todo import Todo

MAX_ALIKE = 20
"""Shows that may fail for one reason with none done between, which is then not theirs."""


class Fate(Enum):
    """What is to be done about a failure."""

    AGAIN = "again"
    PARK = "park"
    END = "end"


class Failures:
    """Judges failures; may be asked from several threads.

    Args:
        attempts: how often a show is tried.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._lock = threading.Lock()
        self._reason = ""
        self._alike: set[str] = set()

    def judge(self, todo: Todo, error: AshaError) -> tuple[Fate, AshaError]:
        """What is to be done about a show's failure, and what to say of it."""
        if isinstance(error, NoRoomError):  # it is no show's fault, and passes
            return Fate.END, error
        if isinstance(error, InputError):  # it would fail as often as it is tried
            return Fate.PARK, error
        if self._is_of_many(todo, error):
            told = FarmError(
                f"working through the archive: {MAX_ALIKE} shows failed one after the other for "
                f"one reason, so nothing more is tried: {error}"
            )
            return Fate.END, told
        return (Fate.PARK if todo.attempts + 1 >= self._attempts else Fate.AGAIN), error

    def forget(self) -> None:
        """A show is done: what failed before it failed for reasons of its own."""
        with self._lock:
            self._alike = set()

    def _is_of_many(self, todo: Todo, error: AshaError) -> bool:
        told = str(error).replace(todo.source.uri, "").replace(todo.source.key, "")
        with self._lock:
            if told != self._reason:
                self._reason, self._alike = told, set()
            self._alike.add(todo.show_id)
            return len(self._alike) >= MAX_ALIKE
