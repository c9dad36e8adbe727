"""An archive from its sound files to its catalogue: what is done, what is kept, what is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

import asha_ray
from asha_ray.spec import ArchiveSpec, build
from asha_ray.storage.ledger import Ledger, ShowRecord
from asha_ray.video.probe import probe
from tests import media
from tests.integration.conftest import Answer, Recorder, make_model

RATE = 22050
RUN = {"executor": "serial", "chunk_s": 0.5}
VIDEO = {"fps": "10"}


def track(path: Path, seconds: float = 1.0, pitch: float = 220.0) -> Path:
    """A short track; another pitch is another track."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = media.music(seconds, RATE) * 0.7
    samples += 0.2 * np.sin(2 * np.pi * pitch * np.arange(len(samples)) / RATE)
    return media.write_sound(path, samples.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("archive-model") / "model")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "shows"
    track(folder / "jazz" / "2023-05-01 Blue.wav", pitch=220)
    track(folder / "jazz" / "2023-05-08 Green.wav", pitch=330)
    track(folder / "night talk.wav", 1.3, pitch=440)
    return folder


@pytest.fixture
def spec(source: Path, model: Path, tmp_path: Path) -> Callable[..., ArchiveSpec]:
    def make(**changes: Any) -> ArchiveSpec:
        plain = {
            "source": source,
            "output": tmp_path / "videos",
            "model": model,
            "video": {**VIDEO, "sound": "copy"},
            "run": RUN,
        }
        return build(ArchiveSpec, {**plain, **changes})

    return make


def outputs(spec: ArchiveSpec) -> set[str]:
    """The videos that are there."""
    folder = Path(spec.output)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4")
            if not path.relative_to(folder).parts[0].startswith(".")}  # fmt: skip


def segments(spec: ArchiveSpec) -> dict[str, int]:
    """Each segment, with when it was made."""
    folder = Path(spec.output) / ".asha" / "segments"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


def records(spec: ArchiveSpec) -> dict[str, ShowRecord]:
    return {record.key: record for record in Ledger(spec.output).read_all().values()}


def states(spec: ArchiveSpec) -> dict[str, str]:
    return {key: record.state for key, record in records(spec).items()}


def test_every_show_has_its_video_and_a_second_run_has_nothing_to_do(
    spec: Callable[..., ArchiveSpec], recorder: Recorder
) -> None:
    archive = spec(paths=["{show}/{date} {title}"])
    result = asha_ray.archive(archive, progress=recorder)

    assert (result.shows, result.todo, result.done, result.parked) == (3, 3, 3, 0)
    assert result.is_whole
    expected = {"jazz/2023-05-01 Blue.mp4", "jazz/2023-05-08 Green.mp4", "night talk.mp4"}
    assert outputs(archive) == expected
    for name in expected:
        video = Path(archive.output) / name
        report = probe(video)
        assert report.problems() == []
        for suffix in (".mp4.json", ".jpg", ".strip.jpg"):
            assert video.with_suffix(suffix).stat().st_size > 0
    assert recorder.done["making shows"] == 3
    before = segments(archive)

    again = asha_ray.archive(archive)

    assert (again.shows, again.todo, again.done) == (3, 0, 0)
    assert again.is_whole
    assert segments(archive) == before


def test_the_catalogue_and_the_ledger_say_what_there_is(spec: Callable[..., ArchiveSpec]) -> None:
    archive = spec(paths=["{show}/{date} {title}"], names="{show}/{date} {title}")
    result = asha_ray.archive(archive)
    rows = {row["path"]: row for row in pq.read_table(result.catalogue).to_pylist()}
    assert set(rows) == {
        "jazz/2023-05-01 Blue.wav", "jazz/2023-05-08 Green.wav", "night talk.wav",
    }  # fmt: skip
    row = rows["jazz/2023-05-01 Blue.wav"]
    assert (row["show"], row["title"], row["date"]) == ("jazz", "Blue", "2023-05-01")
    assert row["output"] == "jazz/2023-05-01 Blue.mp4"
    assert row["state"] == "done"
    assert row["duration_s"] == pytest.approx(1.0)
    assert row["frames"] == 10
    assert (Path(archive.output) / "report.html").read_text().count("2023-05-08") > 0
    status = asha_ray.archive_status(archive.output)
    assert (status.num_done, status.num_parked) == (3, 0)


def test_what_is_new_or_changed_or_gone_is_made_and_nothing_else(
    spec: Callable[..., ArchiveSpec], source: Path
) -> None:
    archive = spec()
    asha_ray.archive(archive)
    before = segments(archive)
    track(source / "jazz" / "new.wav", pitch=550)
    track(source / "night talk.wav", 1.5, pitch=600)
    gone = Path(archive.output) / "jazz" / "2023-05-01 Blue.mp4"
    gone.unlink()

    result = asha_ray.archive(archive)

    assert (result.todo, result.done) == (3, 3)
    assert gone.exists()
    after = segments(archive)
    assert {name: after[name] for name in before} == before, "rendered again"
    assert probe(Path(archive.output) / "night talk.mp4").frames == 15
    record = records(archive)["jazz/2023-05-01 Blue.wav"]
    assert (record.chunks, record.reused_chunks) == (2, 2), "it was only joined again"


def test_a_changed_rule_touches_only_the_shows_that_it_is_for(
    spec: Callable[..., ArchiveSpec],
) -> None:
    asha_ray.archive(spec())
    rules = [{"match": {"path": "jazz/*Blue*"}, "video": {"fps": 20}}]
    archive = spec(rules=rules)
    result = asha_ray.archive(archive)
    assert (result.todo, result.done) == (1, 1)
    assert probe(Path(archive.output) / "jazz/2023-05-01 Blue.mp4").frames == 20
    assert probe(Path(archive.output) / "jazz/2023-05-08 Green.mp4").frames == 10


def test_broken_shows_are_parked_by_name_and_the_others_made(
    spec: Callable[..., ArchiveSpec], source: Path, cli: Callable[..., Answer]
) -> None:
    (source / "broken.mp3").write_text("this is no sound at all\n" * 100)
    (source / "empty.mp3").write_bytes(b"")
    archive = spec()
    command = [
        *("archive", source, "--out", archive.output, "--model", archive.model),
        *("--executor", "serial", "--fps", "10", "--chunk-seconds", "0.5", "--json"),
    ]
    code, out, err = cli(*command)
    result = json.loads(out)
    assert code == 1
    assert (result["done"], result["parked"], result["refused"]) == (3, 1, 1)
    assert "broken.mp3 is parked" in err
    assert states(archive)["broken.mp3"] == "parked"
    parked = asha_ray.archive_status(archive.output).parked
    assert [item.key for item in parked] == ["broken.mp3"]
    assert "/tmp" not in parked[0].reason or str(source) in parked[0].reason

    code, out, _ = cli(*command)
    assert (code, json.loads(out)["todo"]) == (1, 0), "parked until a person says so"

    track(source / "broken.wav", pitch=700)
    shutil.move(source / "broken.wav", source / "broken.mp3")
    code, out, _ = cli("archive", "retry", archive.output, "broken", "--json")
    assert json.loads(out)["done"] == 1
    assert states(archive)["broken.mp3"] == "done"


@pytest.mark.parametrize("is_recorded", [True, False], ids=["done", "killed before its record"])
def test_a_forgotten_show_is_gone_and_stays_gone(
    spec: Callable[..., ArchiveSpec], is_recorded: bool
) -> None:
    archive = spec()
    asha_ray.archive(archive)
    before = segments(archive)
    key = "jazz/2023-05-01 Blue.wav"
    if not is_recorded:
        show_id = records(archive)[key].show_id
        (Path(archive.output) / ".ledger" / "shows" / f"{show_id}.json").unlink()
    found = asha_ray.archive_forget(archive.output, "Blue" if is_recorded else key)
    assert any(uri.endswith("Blue.mp4") for uris in found.removed.values() for uri in uris)
    left = [path for path in Path(archive.output).rglob("*") if "Blue" in path.name]
    assert left == []
    assert len(segments(archive)) == len(before) - 2

    result = asha_ray.archive(archive)

    assert result.todo == 0
    assert outputs(archive) == {"jazz/2023-05-08 Green.mp4", "night talk.mp4"}
    texts = [path.read_bytes() for path in Path(archive.output).rglob("*") if path.is_file()]
    assert not any(b"Blue" in text for text in texts), "its name is left somewhere"


def test_two_shows_never_have_one_name(spec: Callable[..., ArchiveSpec], source: Path) -> None:
    """Titles repeat, and some disks know no upper and lower case."""
    track(source / "a" / "same.wav", pitch=300)
    track(source / "b" / "same.wav", pitch=310)
    track(source / "c" / "SAME.wav", pitch=320)
    archive = spec(include=["*/same.wav"], names="{title}")
    result = asha_ray.archive(archive)
    assert result.done == 3
    found = outputs(archive)
    assert len({name.casefold() for name in found}) == 3
    assert all(name.lower().startswith("same") for name in found)


def test_episodes_are_kin(spec: Callable[..., ArchiveSpec]) -> None:
    archive = spec(paths=["{show}/{date} {title}"])
    asha_ray.archive(archive)
    digests = [record.digests["keyframes"] for record in records(archive).values()]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", ["100% #1 'quoted' \"x\".wav", "Ночь – 夜.wav", "-dash.wav",
                                  f"{'long' * 40}.wav", "a:b.wav", "tab\there.wav"])  # fmt: skip
def test_odd_names_are_handled_or_refused_by_name(
    name: str, spec: Callable[..., ArchiveSpec], source: Path
) -> None:
    track(source / "odd" / name)
    archive = spec(include=["odd/*"])
    notes = Recorder()
    result = asha_ray.archive(archive, progress=notes)
    if "\t" in name:
        assert result.refused == 1
        assert any("tab" in note for note in notes.notes)
    else:
        assert result.done == 1, notes.notes
        (output,) = outputs(archive)
        assert output.startswith("odd/")


def test_a_video_whose_record_a_driver_could_not_write_is_not_made_again(
    spec: Callable[..., ArchiveSpec],
) -> None:
    """A driver that is killed between the two leaves a video that nobody knows."""
    archive = spec()
    asha_ray.archive(archive)
    videos = {name: (Path(archive.output) / name).stat().st_mtime_ns for name in outputs(archive)}
    for path in (Path(archive.output) / ".ledger" / "shows").iterdir():
        path.unlink()
    result = asha_ray.archive(archive)
    assert (result.todo, result.done) == (3, 3)
    found = {name: (Path(archive.output) / name).stat().st_mtime_ns for name in videos}
    assert found == videos
    changed = spec(names="x/{path}", paths=["{show}/{date} {title}"])
    assert asha_ray.archive(changed).done == 3
    assert {name for name in outputs(archive) if not name.startswith("x/")} == set()


def test_a_new_title_makes_a_video_that_says_it(
    spec: Callable[..., ArchiveSpec], source: Path
) -> None:
    archive = spec()
    asha_ray.archive(archive)
    (source / "night talk.wav.asha.yaml").write_text("title: A new title\n")
    result = asha_ray.archive(archive)
    assert (result.todo, result.reused_chunks) == (1, result.chunks)
    with av.open(str(Path(archive.output) / "night talk.mp4")) as video:
        assert video.metadata["title"] == "A new title"


def test_retry_stays_in_the_archive_it_is_given(
    spec: Callable[..., ArchiveSpec], source: Path, tmp_path: Path
) -> None:
    """An archive's own file says where it was; it may have been moved, or be anybody's."""
    (source / "late.mp3").write_text("no sound yet")
    archive = spec()
    asha_ray.archive(archive)
    moved = tmp_path / "moved"
    shutil.move(archive.output, moved)
    track(source / "late.wav", pitch=700)
    shutil.move(source / "late.wav", source / "late.mp3")
    asha_ray.archive_retry(moved)
    assert (moved / "late.mp4").exists()
    assert not Path(archive.output).exists()


def test_a_video_that_is_there_and_torn_is_joined_again(
    spec: Callable[..., ArchiveSpec],
) -> None:
    """Its record says what it was; half of its frames do not decode any more."""
    archive = spec()
    asha_ray.archive(archive)
    video = Path(archive.output) / "night talk.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    for path in (Path(archive.output) / ".ledger" / "shows").iterdir():
        path.unlink()
    result = asha_ray.archive(archive)
    assert (result.done, result.reused_chunks) == (3, result.chunks)
    assert video.read_bytes() == whole


def test_a_rule_may_go_by_how_long_a_show_is(spec: Callable[..., ArchiveSpec]) -> None:
    archive = spec(
        rules=[
            {"match": {"min_duration": 1.2}, "video": {"fps": 20}},
            {"match": {"title": "*green*"}, "skip": True},
        ]
    )
    result = asha_ray.archive(archive)
    assert (result.done, result.skipped, result.is_whole) == (2, 1, True)
    found = records(archive)
    assert {key: (record.state, record.frames) for key, record in found.items()} == {
        "jazz/2023-05-01 Blue.wav": ("done", 10),
        "jazz/2023-05-08 Green.wav": ("skipped", 0),
        "night talk.wav": ("done", 26),
    }
    assert asha_ray.archive(archive).todo == 0, "what is left out stays out"
