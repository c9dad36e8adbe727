"""What a run makes of shows that fail, that others have, that prove damaged; none is rendered."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asha_ray.errors import (
    AudioError,
    EncodeError,
    FarmError,
    SegmentError,
    SpecError,
    StorageError,
)
from asha_ray.farm.archive import others
from asha_ray.farm.archive import run as module
from asha_ray.farm.archive.finish import Finished
from asha_ray.farm.archive.planner import NoRoomError
from asha_ray.farm.archive.rules import ShowFacts
from asha_ray.farm.archive.run import Run
from asha_ray.farm.archive.scan import Source, show_id_of
from asha_ray.farm.archive.shows import Show, Sounding
from asha_ray.farm.archive.todo import Todo, source_of
from asha_ray.farm.jobs.meter import Meter
from asha_ray.farm.rendering.scheduler import Watch
from asha_ray.progress import NullProgress, Stop
from asha_ray.spec import ArchiveSpec, build
from asha_ray.storage.journal import Journal
from asha_ray.storage.ledger import Ledger, ShowRecord
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, Segment, Tags

CHUNKS = 2


class Line:
    num_frames, latent_dim = 1000, 1

    def latents(self, start: int, stop: int) -> Any:
        return np.zeros((stop - start, 1), np.float32)


class Farm:
    """Executor and planner in one: what becomes of a show is said by its key, try by try."""

    def __init__(self, folder: Path, fates: dict[str, list[Exception | None]]) -> None:
        self.work, self._fates = WorkRoot(str(folder / "work")), fates
        self.plans: Counter[str] = Counter()
        self.rendered: list[str] = []
        self.finished: list[str] = []
        self.lost: dict[str, Exception] = {}
        self.damaged: dict[str, list[str]] = {}
        self.during: Callable[[], None] = lambda: None
        self.finishing: Callable[[Any], None] = lambda _: None

    # As a planner.

    def plan(self, todo: Todo, began: float) -> Show | ShowRecord:
        key = todo.source.key
        self.plans[key] += 1
        fates = self._fates.get(key, [])
        fate = fates[min(self.plans[key], len(fates)) - 1] if fates else None
        if isinstance(fate, Exception):
            raise fate
        chunks = tuple(
            Chunk(i, 10 * i, 10 * i + 10, f"{show_id_of(key)}{i}") for i in range(CHUNKS)
        )
        made: Any = SimpleNamespace
        manifest = made(
            chunks=chunks, num_frames=20, render_id=f"{todo.show_id}", fps=Fraction(10),
            size=(64, 64), digests={"audio": "0"},
        )  # fmt: skip
        facts = ShowFacts(key, "show", key, "", "", "", 2.0)
        return Show(
            todo=todo, began=began, heard=made(facts=facts, tags=Tags()),
            sounding=Sounding(120.0, (), 0),
            spec=made(output=f"/out/{key}.mp4", audio=key, model="m"),
            plan=made(manifest=manifest, path=Line()), job=made(numerics=made(batch_size=1)),
            name=key, claim=key,
        )  # fmt: skip

    # As an executor.

    def num_calls(self) -> int:
        return 2

    def render(self, job: Any, source: Any, watch: Watch) -> Iterator[Segment]:
        watch.on_crew(1, 0)
        for task in source:
            self.during()
            if task is None:
                time.sleep(0.002)
                continue
            chunk_id = task.chunk.chunk_id
            if chunk_id in self.lost:
                watch.on_given_up(task, self.lost.pop(chunk_id))  # type: ignore[arg-type]
                continue
            self.rendered.append(chunk_id)
            yield Segment(chunk_id, "0" * 64, 1, 10, 1.0, "w")

    def call(self, function: Any, item: Any, stop: Stop) -> Finished:
        if ids := self.damaged.pop(item.name, []):
            raise SegmentError("it has changed", *ids)
        self.finished.append(item.name)
        self.finishing(item)
        return Finished((f"{item.name}.mp4",), "0" * 64, {"decoded": 20}, -14.0)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr(module, "ELSEWHERE_S", 0.01)
    monkeypatch.setattr(others, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(module, "AssemblyJob", SimpleNamespace)
    monkeypatch.setattr(WorkRoot, "write_manifest", lambda *_: None)


@pytest.fixture
def spec(tmp_path: Path) -> ArchiveSpec:
    return build(ArchiveSpec, {"source": tmp_path / "in", "output": tmp_path / "out", "model": "m"})


def todo_of(key: str, records: dict[str, ShowRecord] | None = None, why: str = "new") -> Todo:
    source = Source(key, f"/in/{key}", 1000, 0.0, "v1")
    return Todo(source, show_id_of(key), "settings", why, records or {})  # type: ignore[arg-type]


def run_of(farm: Farm, spec: ArchiveSpec, todo: list[Todo]) -> Run:
    ledger = Ledger(spec.output)
    journal = Journal(ledger.run_folder("this"), "archive")
    with journal:
        made: Any = farm
        run = Run(spec, ledger, todo, made, made, Stop(), journal, NullProgress(), Meter(None))
        try:
            run.work(made)
        finally:
            run.look()
    return run


def record(spec: ArchiveSpec, key: str) -> ShowRecord:
    return Ledger(spec.output).read(show_id_of(key))


def test_each_show_is_done_once(tmp_path: Path, spec: ArchiveSpec) -> None:
    keys = [f"{number:02d}.mp3" for number in range(30)]
    farm = Farm(tmp_path, {})
    run = run_of(farm, spec, [todo_of(key) for key in keys])
    assert (run.tally.done, run.tally.parked) == (30, 0)
    assert sorted(farm.finished) == keys
    assert len(set(farm.rendered)) == len(farm.rendered) == 30 * CHUNKS
    assert record(spec, "07.mp3").state == "done"
    assert record(spec, "07.mp3").render_s == CHUNKS
    assert run.tally.bytes_left == 0


def test_what_fails_is_tried_again_and_then_done(tmp_path: Path, spec: ArchiveSpec) -> None:
    farm = Farm(tmp_path, {"a.mp3": [StorageError("no"), FarmError("no"), None]})
    run = run_of(farm, spec, [todo_of("a.mp3"), todo_of("b.mp3")])
    assert (run.tally.done, run.tally.failed, run.tally.parked) == (2, 2, 0)
    assert farm.plans["a.mp3"] == 3


def test_what_fails_three_times_is_parked_with_its_reason(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    farm = Farm(tmp_path, {"a.mp3": [EncodeError("the disk is odd; look at it")]})
    run = run_of(farm, spec, [todo_of("a.mp3"), todo_of("b.mp3")])
    assert (run.tally.done, run.tally.parked) == (1, 1)
    found = record(spec, "a.mp3")
    assert (found.state, found.attempts) == ("parked", 3)
    assert found.reason == "the disk is odd; look at it"
    assert (found.source, found.settings) == ("1000:v1", "settings")


def test_attempts_of_an_earlier_run_count(tmp_path: Path, spec: ArchiveSpec) -> None:
    """A show that ends every driver must not be tried for ever."""
    before = ShowRecord(show_id_of("a.mp3"), "failed", "a.mp3", "1000:v1", "settings", attempts=2)
    todo = todo_of("a.mp3", {before.show_id: before}, "failed")
    farm = Farm(tmp_path, {"a.mp3": [EncodeError("no")]})
    run = run_of(farm, spec, [todo])
    assert run.tally.parked == 1
    assert farm.plans["a.mp3"] == 1


def test_what_cannot_be_helped_is_parked_at_once(tmp_path: Path, spec: ArchiveSpec) -> None:
    farm = Farm(tmp_path, {"a.mp3": [AudioError("it is no sound; give another file")]})
    run_of(farm, spec, [todo_of("a.mp3")])
    assert farm.plans["a.mp3"] == 1
    assert record(spec, "a.mp3").state == "parked"


def test_an_error_that_nobody_expected_costs_its_own_show(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    farm = Farm(tmp_path, {"a.mp3": [ZeroDivisionError("by zero")]})
    run = run_of(farm, spec, [todo_of("a.mp3"), todo_of("b.mp3")])
    assert run.tally.done == 1
    assert "ZeroDivisionError" in record(spec, "a.mp3").reason


def test_a_chunk_that_cannot_be_rendered_fails_its_show(tmp_path: Path, spec: ArchiveSpec) -> None:
    farm = Farm(tmp_path, {})
    farm.lost = {f"{show_id_of('a.mp3')}1": EncodeError("frames 10 to 19 failed 3 times")}
    run = run_of(farm, spec, [todo_of("a.mp3"), todo_of("b.mp3")])
    assert (run.tally.done, run.tally.failed) == (2, 1)
    assert farm.plans["a.mp3"] == 2


def test_damaged_segments_are_rendered_again(tmp_path: Path, spec: ArchiveSpec) -> None:
    damaged = f"{show_id_of('a.mp3')}0"
    farm = Farm(tmp_path, {})
    farm.damaged = {"a.mp3": [damaged]}
    run = run_of(farm, spec, [todo_of("a.mp3")])
    assert run.tally.done == 1
    assert farm.rendered.count(damaged) == 2
    assert len(farm.rendered) == CHUNKS + 1


def test_where_all_fail_alike_no_more_is_tried(tmp_path: Path, spec: ArchiveSpec) -> None:
    """A model that is gone would park a hundred thousand shows, one by one."""
    keys = [f"{number:03d}.mp3" for number in range(200)]
    farm = Farm(tmp_path, {key: [FarmError(f"rendering /in/{key}: no model")] for key in keys})
    with pytest.raises(FarmError, match="20 shows failed one after the other for one reason"):
        run_of(farm, spec, [todo_of(key) for key in keys])
    assert sum(farm.plans.values()) < 60


def test_broken_files_in_a_row_are_no_reason_to_end(tmp_path: Path, spec: ArchiveSpec) -> None:
    keys = [f"{number:03d}.mp3" for number in range(50)]
    farm = Farm(tmp_path, {key: [AudioError("it is no sound")] for key in keys})
    run = run_of(farm, spec, [*(todo_of(key) for key in keys), todo_of("good.mp3")])
    assert (run.tally.parked, run.tally.done) == (50, 1)


def test_what_another_run_has_in_hand_is_left_to_it(tmp_path: Path, spec: ArchiveSpec) -> None:
    ledger = Ledger(spec.output)
    other = Journal(ledger.run_folder("other"), "archive")
    other.status(in_hand=["a.mp3"])
    other.beat()
    farm = Farm(tmp_path, {})
    todo = todo_of("a.mp3")

    def end_the_other() -> None:
        if "b.mp3" in farm.finished and not ledger_has(ledger, todo.show_id):
            done = ShowRecord(
                todo.show_id, "done", "a.mp3", source_of(todo.source), "settings", time="now",
                output="a.mp4",
            )  # fmt: skip
            ledger.write(done)
            other.status(in_hand=[], state="done")
            other.beat()

    farm.during = end_the_other
    run = run_of(farm, spec, [todo, todo_of("b.mp3")])
    assert farm.plans["a.mp3"] == 0
    assert (run.tally.done, run.tally.elsewhere) == (2, 1)


def ledger_has(ledger: Ledger, show_id: str) -> bool:
    return (Path(ledger.folder) / "shows" / f"{show_id}.json").exists()


def test_a_run_tells_what_it_has_in_hand_and_how_far_it_is(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    farm = Farm(tmp_path, {})
    run_of(farm, spec, [todo_of("a.mp3")])
    beat = json.loads((Path(spec.output) / ".ledger/runs/this/heartbeat.json").read_text())
    assert (beat["shows"], beat["shows_done"], beat["sound_s"]) == (1, 1, 2.0)
    assert beat["in_hand"] == []
    assert beat["state"] == "done"


def test_the_name_of_an_earlier_version_is_put_away(tmp_path: Path, spec: ArchiveSpec) -> None:
    """A title was mended, and the video has another name now."""
    ledger, out = Ledger(spec.output), Path(spec.output)
    before = ShowRecord(
        show_id_of("a.mp3"), "done", "a.mp3", "1000:v0", "settings",
        output="old.mp4", files=("old.mp4", "old.mp4.json", "old.jpg"),
    )  # fmt: skip
    ledger.claim_name("old", before.show_id)
    for name in before.files:
        (out / name).write_text("x")
    todo = todo_of("a.mp3", {before.show_id: before}, "changed")
    run_of(Farm(tmp_path, {}), spec, [todo])
    assert [path.name for path in out.iterdir() if path.is_file()] == []
    assert ledger.name_holder("old") is None


def test_what_has_been_taken_down_meanwhile_is_not_made(tmp_path: Path, spec: ArchiveSpec) -> None:
    ledger, farm = Ledger(spec.output), Farm(tmp_path, {})
    todo = [todo_of("a.mp3"), todo_of("b.mp3")]

    def take_down() -> None:
        if len(farm.rendered) == 1:
            ledger.write(ShowRecord(show_id_of("a.mp3"), "forgotten"))

    farm.during = take_down
    run = run_of(farm, spec, todo)
    assert record(spec, "a.mp3") == ShowRecord(show_id_of("a.mp3"), "forgotten")
    assert (run.tally.done, run.tally.skipped) == (1, 1)
    assert "a.mp3" not in farm.finished


def test_what_is_taken_down_while_it_is_put_in_its_place_is_put_away(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    ledger, farm = Ledger(spec.output), Farm(tmp_path, {})
    out = Path(spec.output)

    def finish(item: Any) -> None:
        (out / "a.mp3.mp4").write_text("a video")
        ledger.write(ShowRecord(show_id_of("a.mp3"), "forgotten"))

    farm.finishing = finish
    run = run_of(farm, spec, [todo_of("a.mp3")])
    assert record(spec, "a.mp3").state == "forgotten"
    assert not (out / "a.mp3.mp4").exists()
    assert run.tally.skipped == 1


def test_a_forgotten_show_that_somebody_asks_for_is_made(tmp_path: Path, spec: ArchiveSpec) -> None:
    before = ShowRecord(show_id_of("a.mp3"), "forgotten")
    Ledger(spec.output).write(before)
    todo = todo_of("a.mp3", {before.show_id: before}, "asked")
    run_of(Farm(tmp_path, {}), spec, [todo])
    assert record(spec, "a.mp3").state == "done"


def test_a_storage_that_refuses_to_mend_ends_no_thread(
    tmp_path: Path, spec: ArchiveSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would wait for ever for a show that nobody finishes."""
    farm = Farm(tmp_path, {})
    farm.damaged = {"a.mp3": [f"{show_id_of('a.mp3')}0"]}
    times = iter([StorageError("deleting: no answer")])

    def refuse(*_: Any) -> None:
        if error := next(times, None):
            raise error

    monkeypatch.setattr(WorkRoot, "forget_segment", refuse)
    run = run_of(farm, spec, [todo_of("a.mp3"), todo_of("b.mp3")])
    assert (run.tally.done, run.tally.failed) == (2, 1)


def test_an_unexpected_error_in_a_thread_ends_the_run(
    tmp_path: Path, spec: ArchiveSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise ZeroDivisionError("in the ledger")

    monkeypatch.setattr(Ledger, "write", explode)
    with pytest.raises(FarmError, match="ZeroDivisionError"):
        run_of(Farm(tmp_path, {}), spec, [todo_of("a.mp3")])


def test_the_same_typo_in_many_sidecars_parks_these_alone(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    keys = [f"{number:03d}.mp3" for number in range(30)]
    farm = Farm(tmp_path, {key: [SpecError("video.crf: wrong")] for key in keys})
    run = run_of(farm, spec, [*(todo_of(key) for key in keys), todo_of("good.mp3")])
    assert (run.tally.parked, run.tally.done) == (30, 1)


def test_attempts_of_few_shows_are_no_failure_of_all(tmp_path: Path, spec: ArchiveSpec) -> None:
    keys = [f"{number}.mp3" for number in range(8)]
    farm = Farm(tmp_path, {key: [FarmError("it is odd")] for key in keys})
    run = run_of(farm, spec, [todo_of(key) for key in keys])
    assert run.tally.parked == 8


def test_a_full_disk_parks_nothing(tmp_path: Path, spec: ArchiveSpec) -> None:
    farm = Farm(tmp_path, {"a.mp3": [NoRoomError("1 GB is needed, none is free")]})
    with pytest.raises(NoRoomError, match="none is free"):
        run_of(farm, spec, [todo_of("a.mp3")])
    assert not ledger_has(Ledger(spec.output), show_id_of("a.mp3"))


def test_a_name_that_changes_only_in_its_case_stays_the_shows_own(
    tmp_path: Path, spec: ArchiveSpec
) -> None:
    """Released, another show would take it, and its video would be this one's."""
    ledger, out = Ledger(spec.output), Path(spec.output)
    before = ShowRecord(
        show_id_of("a.mp3"), "done", "a.mp3", "1000:v0", "settings",
        output="A.MP3.mp4", files=("A.MP3.mp4",),
    )  # fmt: skip
    ledger.claim_name("a.mp3", before.show_id)
    (out / "A.MP3.mp4").write_text("x")
    run_of(Farm(tmp_path, {}), spec, [todo_of("a.mp3", {before.show_id: before}, "changed")])
    assert ledger.name_holder("a.mp3") == before.show_id
    assert (out / "A.MP3.mp4").exists(), "on some disks it is the new one"
