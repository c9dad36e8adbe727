"""What holds for every test process, of which several may run beside one another."""

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest

# Read by torch and NumPy when they are first imported, and passed on to all that tests start. Each
# process computes on one core, and threads that wait do not spin: on a busy machine, spinning costs
# more than the networks of these tests, which are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Ray's workers give way to all else by default; beside another test process they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")
# How long an example takes says how busy the machine is, not whether what it shows is true.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keeps the garbage collector away from what is imported.

    It lives as long as the process: a million objects, among which cycles would be looked for again
    and again, for a tenth of the time that all unit tests take.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000)
        gc.enable()
