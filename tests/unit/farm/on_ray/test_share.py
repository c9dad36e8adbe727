"""What a driver makes of a board that answers late, or not at all."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from ray import exceptions as ray_errors

from asha_ray.errors import FarmError
from asha_ray.farm.on_ray import share as ray_share
from asha_ray.farm.on_ray.fair import Demand
from asha_ray.farm.on_ray.share import LOST_S, Share, repeating

CPU = {"CPU": 1.0}
NODES, LIVING = [({"CPU": 8.0}, 2)], [({"CPU": 8.0}, 1)]


class Board:
    """A board whose answers the test gives; a call is a reference by its number."""

    def __init__(self) -> None:
        self.reports: list[tuple[Any, ...]] = []
        self.answers: dict[int, Any] = {}
        self.num_left = 0
        self.num_found = 0

    @property
    def report(self) -> Any:
        return self._call(lambda _job, *told: self.reports.append(told))

    @property
    def leave(self) -> Any:
        def leave(_job: str) -> None:
            self.num_left += 1

        return self._call(leave)

    def _call(self, action: Callable[..., None]) -> Any:
        class Method:
            @staticmethod
            def remote(*arguments: Any) -> int:
                action(*arguments)
                return len(self.reports)

        return Method

    def wait(self, references: list[int], **_: object) -> tuple[list[int], list[int]]:
        return [reference for reference in references if reference in self.answers], []

    def get(self, reference: int) -> Any:
        answer = self.answers[reference]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def find(self) -> "Board":
        self.num_found += 1
        return self


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(ray_share.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> Board:
    board = Board()
    monkeypatch.setattr(ray_share, "ray", board)
    return board


@pytest.fixture
def share(board: Board) -> Share:
    return Share(3, board.find)


def test_it_says_what_it_wants_and_hears_what_it_may_have(board: Board, share: Share) -> None:
    board.answers[1] = 2
    assert share.ask(5, CPU, NODES, LIVING, 3) == 2
    assert board.reports == [(Demand(3, 5, CPU, 3), NODES, LIVING)]


def test_without_an_answer_it_goes_on_with_what_it_had(board: Board, share: Share) -> None:
    assert share.ask(5, CPU, NODES, LIVING) is None, "it never had any"
    board.answers[1] = 2
    assert share.ask(5, CPU, NODES, LIVING) == 2
    assert share.ask(5, CPU, NODES, LIVING) == 2, "the second is not there yet"
    assert len(board.reports) == 2, "nothing is asked twice meanwhile"


def test_an_answer_that_does_not_come_is_asked_for_anew(
    board: Board, share: Share, clock: list[float]
) -> None:
    board.answers[1] = 2
    share.ask(5, CPU, NODES, LIVING)
    share.ask(5, CPU, NODES, LIVING)
    clock[0] += LOST_S + 1
    assert share.ask(5, CPU, NODES, LIVING) == 2
    board.answers[3] = 4
    assert share.ask(5, CPU, NODES, LIVING) == 4
    assert board.num_found == 2


@pytest.mark.parametrize(
    "error", [ray_errors.ActorUnavailableError("rpc", b"a" * 16), ray_errors.RaySystemError("gone")]
)
def test_a_board_that_is_gone_is_looked_for_again(
    error: Exception, board: Board, share: Share
) -> None:
    board.answers[1] = 2
    share.ask(5, CPU, NODES, LIVING)
    board.answers[2] = error
    assert share.ask(5, CPU, NODES, LIVING) == 2
    board.answers[3] = 1
    assert share.ask(5, CPU, NODES, LIVING) == 1
    assert board.num_found == 2


def test_a_board_that_began_anew_and_cannot_say_yet_changes_nothing(
    board: Board, share: Share
) -> None:
    """Without a limit for a moment, a job would take what is another's."""
    board.answers |= {1: 2, 2: None, 3: 4}
    assert [share.ask(5, CPU, NODES, LIVING) for _ in range(3)] == [2, 2, 4]


def test_nothing_is_asked_while_the_head_is_away(
    board: Board, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would block until Ray ends the process."""
    monkeypatch.setattr(ray_share, "is_head_there", lambda: False)
    assert share.ask(5, CPU, NODES, LIVING) is None
    share.leave()
    assert board.num_found == board.num_left == 0


def test_who_leaves_says_so_once(board: Board, share: Share) -> None:
    share.leave()
    board.answers[1] = 2
    share.ask(5, CPU, NODES, LIVING)
    share.leave()
    share.leave()
    assert board.num_left == 1


def test_what_is_repeated_ends_with_its_context_and_survives_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_share, "REPORT_S", 0.001)
    called, enough = [], threading.Event()

    def act() -> None:
        called.append(1)
        if len(called) == 3:
            enough.set()
        raise FarmError("the head is away")

    with repeating(act):
        assert enough.wait(30)
    count = len(called)
    assert not [thread for thread in threading.enumerate() if thread.name == "asha-share"]
    assert len(called) == count
