"""Memory that is free already, given back to the machine."""

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Let the C library hand the memory that it keeps for later back to the system.

    glibc has a heap for each thread and returns only what lies at its end, so arrays of some
    megabytes that come and go leave holes, and these grow by some 100 MB an hour of sound. Called
    after a piece of work of many seconds, as it takes some milliseconds. Where the C library has
    no such function, nothing happens.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
