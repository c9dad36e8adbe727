"""What a show's record says of one that could not be made: what there is of it is found again."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asha_ray.farm.archive import outcome
from asha_ray.farm.archive.scan import Source, show_id_of
from asha_ray.farm.archive.todo import Todo
from asha_ray.storage.ledger import Ledger, ShowRecord

KEY = "a.mp3"
BEFORE = ShowRecord(
    show_id_of(KEY),
    "done",
    key=KEY,
    output="Old.mp4",
    files=("Old.mp4", "Old.jpg"),
    work="/work",
    render_id="0" * 40,
    digests={"audio": "b" * 64},
)


def a_todo(before: ShowRecord | None) -> Todo:
    records = {BEFORE.show_id: before} if before else {}
    return Todo(Source(KEY, f"/in/{KEY}", 5, 0.0, "1"), BEFORE.show_id, "s", "new", records)


def a_plan() -> Any:
    manifest = SimpleNamespace(render_id="1" * 40, digests={"audio": "c" * 64})
    return SimpleNamespace(name="New", plan=SimpleNamespace(manifest=manifest))


def test_a_show_that_fails_after_its_plan_says_where_it_is(tmp_path: Path) -> None:
    """Or its segments are in the work root, and a takedown finds none of them."""
    record = outcome.failed(a_todo(None), "parked", "torn", 0.0, show=a_plan(), work="/work")
    assert (record.output, record.files, record.work) == ("New.mp4", (), "/work")
    assert (record.render_id, record.digests) == ("1" * 40, {"audio": "c" * 64})
    assert (record.state, record.reason, record.attempts) == ("parked", "torn", 1)
    ledger = Ledger(str(tmp_path))
    ledger.write(record)
    assert ledger.read(record.show_id) == record


def test_an_earlier_video_is_not_lost_when_a_later_one_fails() -> None:
    """It is there still, and is deleted once the show is done under its new name."""
    record = outcome.failed(a_todo(BEFORE), "failed", "torn", 0.0, show=a_plan(), work="/work")
    assert (record.output, record.files) == (BEFORE.output, BEFORE.files)
    assert (record.work, record.render_id) == ("/work", "1" * 40)


def test_an_earlier_work_root_is_not_lost_when_a_later_one_is_used() -> None:
    """What is in the latest is found by the sound file, what is in the earlier by nothing else."""
    record = outcome.failed(a_todo(BEFORE), "failed", "torn", 0.0, show=a_plan(), work="/other")
    assert (record.work, record.render_id) == (BEFORE.work, BEFORE.render_id)
    assert record.digests == BEFORE.digests


def test_the_name_of_an_attempt_that_made_nothing_is_not_kept() -> None:
    """Another show may have it by now."""
    before = replace(BEFORE, state="failed", files=())
    record = outcome.failed(a_todo(before), "failed", "torn", 0.0, show=a_plan(), work="/work")
    assert record.output == "New.mp4"


@pytest.mark.parametrize("before", [None, BEFORE], ids=["never made", "made before"])
def test_a_show_that_fails_before_its_plan_keeps_what_it_had(before: ShowRecord | None) -> None:
    record = outcome.failed(a_todo(before), "failed", "torn", 0.0)
    known = before or ShowRecord(record.show_id, "failed")
    assert [getattr(record, name) for name in outcome.LEFT] == [
        getattr(known, name) for name in outcome.LEFT
    ]
