"""What people ask of an archive: a word that it cannot keep is refused, not answered."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from asha_ray.errors import JobError
from asha_ray.farm.archive import ask
from asha_ray.progress import NullProgress
from asha_ray.storage.ledger import Ledger
from tests.unit.farm.archive.fake_ledger import a_show, show_id_of


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An archive with a show of each kind."""
    ledger = Ledger(str(tmp_path))
    ledger.write_plan({"source": "/in"})
    ledger.write_spec({"source": "/in", "model": "m", "output": str(tmp_path)})
    for state in ("done", "failed", "parked", "skipped", "forgotten"):
        ledger.write(a_show(f"{state}.mp3", state))
    return str(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What archives are asked to do."""
    asked = []

    def archive(*_: Any, only: Collection[str], **__: Any) -> None:
        asked.append(set(only))

    monkeypatch.setattr(ask, "archive", archive)
    return asked


@pytest.mark.parametrize("state", ["failed", "parked", "skipped", "forgotten"])
def test_a_show_that_is_not_done_is_tried_again(
    output: str, asked: list[set[str]], state: str
) -> None:
    ask.retry(output, [f"{state}.mp3"])
    assert asked == [{show_id_of(f"{state}.mp3")}]


def test_a_show_that_is_done_is_not_tried_again(output: str, asked: list[set[str]]) -> None:
    """Nothing would be made, and success said, whatever else was named."""
    with pytest.raises(JobError, match=r"trying 'done.mp3' again: it is done; .* makes it anew by"):
        ask.retry(output, ["parked.mp3", "done.mp3"])
    assert asked == []


def test_all_that_are_parked_are_tried_where_none_is_named(
    output: str, asked: list[set[str]]
) -> None:
    ask.retry(output, [])
    assert asked == [{show_id_of("parked.mp3")}]


def test_a_takedown_tells_how_far_it_is(output: str) -> None:
    """It reads an archive's every record, for minutes where that is large."""

    stages = []

    class Heard(NullProgress):
        def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
            stages.append(name)

    ask.forget(output, "parked.mp3", progress=Heard())
    assert stages == ["reading the ledger", "looking at names", "looking at runs", "telling"]
