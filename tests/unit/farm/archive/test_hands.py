"""Threads that may be left behind."""

import threading
import time

from asha_ray.farm.archive.hands import Hands


def raise_it(error: Exception) -> None:
    raise error


def test_what_is_raised_is_told_and_the_thread_goes_on() -> None:
    """A thread that ends without a word leaves a run that waits for ever."""
    errors: list[Exception] = []
    done = threading.Event()
    hands = Hands("test", errors.append)
    hands.grow(1)
    hands.give(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    hands.give(done.set)
    assert done.wait(10)
    hands.close(10)
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_what_was_given_is_done_before_they_end() -> None:
    done: list[int] = []
    hands = Hands("test", raise_it)
    hands.grow(2)
    for number in range(20):
        hands.give(lambda number=number: done.append(number))  # type: ignore[misc]
    hands.close(10)
    assert sorted(done) == list(range(20))


def test_nobody_waits_for_one_that_does_not_end() -> None:
    """Three hours of sound that are being heard would keep a stopped archive from ending."""
    begun, ever = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        ever.wait(30)

    hands = Hands("test", raise_it)
    hands.grow(1)
    hands.give(work)
    assert begun.wait(10)
    since = time.monotonic()
    hands.close(0.1)
    assert time.monotonic() - since < 5
    ever.set()
