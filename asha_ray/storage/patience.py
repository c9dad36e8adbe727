"""Trying again what may go well later: with pauses that grow, for so long and no longer."""

import errno
import random
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from asha_ray.errors import StorageError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

FULL_DISK_PATIENCE_S = 30.0
"""A disk may be full for a moment: another render ends, or somebody makes room."""
FULL = (errno.ENOSPC, errno.EDQUOT)

Answer = TypeVar("Answer")


class Clock(Protocol):
    """What tells the time and lets it pass."""

    def monotonic(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


CLOCK: Clock = time
"""Tests put one here that takes no time."""


def patiently(action: Callable[[], Answer], patience_s: Callable[[StorageError], float]) -> Answer:
    """What an action answers, tried again while what stops it may pass.

    Args:
        action: may be done more than once.
        patience_s: for how many seconds after the first failure an error is worth another try;
            0 for what does not pass.

    Raises:
        StorageError: the last one, when patience is at an end.
    """
    failed_at: float | None = None
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return action()
        except StorageError as error:
            # Not from the beginning: a long upload that breaks off at its end has a second chance.
            now = CLOCK.monotonic()
            failed_at = now if failed_at is None else failed_at
            if now - failed_at + pause_s > patience_s(error):
                raise
        # Random, so that a farm's workers do not all come back at once.
        CLOCK.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 (no secret)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def full_disk_patience_s(error: StorageError) -> float:
    """How long to wait where a local disk is full; 0 for any other error."""
    cause = error.__cause__
    return FULL_DISK_PATIENCE_S if isinstance(cause, OSError) and cause.errno in FULL else 0.0
