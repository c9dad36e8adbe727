"""How many threads are worth having on this machine."""

import os

MAX_THREADS = 8


def cpu_threads() -> int:
    """As many as the cores that this process may use, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MAX_THREADS, cores or 1)
