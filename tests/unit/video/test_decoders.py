"""Decoders beside one another: order, bounds, and an end whatever happens."""

import threading

import numpy as np
import pytest
import torch

from asha_ray.video.decoders import Decoders, on_host

DEADLINE_S = 10


@pytest.fixture
def decoders():
    with Decoders(3, threads=1) as made:
        yield made


def test_results_come_in_order_whoever_is_done_first(decoders):
    """The first waits until the second is done: order must not be the order of finishing."""
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(DEADLINE_S)
        if item == 1:
            second_done.set()
        return item * 10

    assert list(decoders.map(work, range(20))) == [item * 10 for item in range(20)]


def test_they_work_at_the_same_time(decoders):
    barrier = threading.Barrier(3, timeout=DEADLINE_S)
    assert list(decoders.map(lambda item: barrier.wait() >= 0, range(3))) == [True] * 3


def test_never_more_than_a_few_are_ahead(decoders):
    """A render of hours must not pile up frames that the encoder has not taken yet."""
    begun = []

    def items():
        for item in range(100):
            begun.append(item)
            yield item

    results = decoders.map(lambda item: item, items())
    for taken in range(50):
        assert next(results) == taken
        assert len(begun) <= taken + 6


def test_an_error_comes_at_its_turn_and_ends_the_rest(decoders):
    def work(item):
        if item == 4:
            raise MemoryError("on purpose")
        return item

    results = decoders.map(work, range(100))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(MemoryError, match="on purpose"):
        next(results)
    assert list(decoders.map(lambda item: item, range(5))) == [0, 1, 2, 3, 4]


def test_giving_up_waits_for_what_runs(decoders):
    """What still runs when a chunk is given up would write into a buffer that is gone."""
    running = threading.Semaphore(0)
    counts = {"begun": 0, "ended": 0}

    def work(item):
        counts["begun"] += 1
        running.release()
        counts["ended"] += 1
        return item

    results = decoders.map(work, range(100))
    next(results)
    results.close()
    assert counts["begun"] == counts["ended"]


def test_torchs_threads_are_as_before_when_they_end():
    before = torch.get_num_threads()
    with Decoders(2, threads=1) as decoders:
        assert list(decoders.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
    assert torch.get_num_threads() == before


def test_bytes_of_a_cpus_frames_are_not_copied():
    frames = torch.arange(12, dtype=torch.uint8).reshape(2, 6)
    assert on_host(frames).ctypes.data == frames.data_ptr()
    assert on_host(frames).dtype == np.uint8
