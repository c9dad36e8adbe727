"""However often and in whatever order a job hears that it shall end, it ends once, and in peace."""

import os
import signal
from collections.abc import Iterator

import pytest

from asha_ray.farm.jobs.ending import WISH, Ending

KINDS = (signal.SIGINT, signal.SIGTERM, WISH)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[int]]:
    """What stands in for the command line's own handlers; yields what these have heard."""
    before = {kind: signal.getsignal(kind) for kind in KINDS}
    heard: list[int] = []

    def stop(kind: int, _: object) -> None:
        heard.append(kind)
        raise KeyboardInterrupt

    for kind in KINDS[:2]:
        signal.signal(kind, stop)
    yield heard
    for kind, handler in before.items():
        signal.signal(kind, handler)


def send(kind: int) -> None:
    os.kill(os.getpid(), kind)


def test_a_wish_interrupts() -> None:
    ending = Ending()
    with pytest.raises(KeyboardInterrupt), ending.heard():
        ending.wish()


def test_a_clusters_word_for_the_same_wish_disturbs_nothing(handlers: list[int]) -> None:
    ending = Ending()
    with ending.heard():
        with pytest.raises(KeyboardInterrupt):
            ending.wish()
        send(signal.SIGTERM)  # while it puts things away
        assert handlers == []
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)  # somebody insists
    assert handlers == [signal.SIGTERM]


def test_a_wish_that_comes_after_the_clusters_word_disturbs_nothing(handlers: list[int]) -> None:
    ending = Ending()
    with ending.heard():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        ending.wish()
        ending.wish()
    assert handlers == [signal.SIGTERM]


def test_a_wish_that_comes_too_late_kills_nobody() -> None:
    ending = Ending()
    with ending.heard():
        pass
    ending.wish()


def test_afterwards_signals_are_whose_they_were(handlers: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Ending().heard():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
