"""A takedown: all that was made of a show goes, nothing of any other, and nothing tells of it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from asha_ray.cli.archive_report import forgotten_document, forgotten_text
from asha_ray.errors import JobError, NotFoundError, StorageError
from asha_ray.farm.archive.catalogue import publish_catalogue
from asha_ray.farm.archive.forget import find_show, forget
from asha_ray.farm.archive.report import write_report
from asha_ray.farm.archive.telling import is_told
from asha_ray.progress import NullProgress
from asha_ray.storage.journal import now
from asha_ray.storage.ledger import Ledger, ShowRecord
from asha_ray.storage.local import LocalStorage
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, EncoderSettings, Manifest, Numerics
from tests.unit.farm.archive.fake_ledger import a_run, a_show, show_id_of

KEY = "Nacht/Über den Wolken.mp3"
TITLE = "Über den Wolken"


def digits(number: int) -> str:
    """Forty hexadecimal digits, as all names of a work root have."""
    return f"{number:040x}"


def name_of(name: str) -> str:
    """What a claim's file is called."""
    return hashlib.sha256(name.encode()).hexdigest()


class Archive:
    """An archive of two shows, `KEY` of chunks 1 to 3 and `Other/b.mp3` of 3 and 4, made by hand.

    Args:
        path: of its output.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.work, self.source = path, path / ".asha", path.parent / "shows"
        self.ledger = Ledger(str(path))
        self.ledger.write_plan({"source": str(self.source)})
        self.show = self.add(KEY, 1, [1, 2, 3], "a" * 64, title=TITLE)
        self.other = self.add("Other/b.mp3", 2, [3, 4], "b" * 64)
        self.ledger.claim_name("nacht/über den wolken", self.show.show_id)
        self.ledger.claim_name("other/b", self.other.show_id)
        run = Path(self.ledger.folder, "runs", "run-1")
        self.put(run / "events/d-000000.jsonl", _event(KEY) + _event("Other/b.mp3"))
        self.put(run / "events/d-000001.jsonl", _event(KEY))
        self.put(run / "logs/d-000000.log", f"x  done: {TITLE}\nx  done: b\n".encode())
        a_run(
            self.ledger.folder,
            "run-1",
            in_hand=[KEY, "Other/b.mp3"],
            error=f"{KEY}: torn",
            workers=2,
        )
        self.publish()

    def publish(self) -> None:
        self.ledger.write_index(self.ledger.read_all())
        publish_catalogue(self.ledger.read_all().values(), str(self.path))
        write_report(self.ledger, str(self.path))

    def put(self, path: Path, content: bytes = b"x" * 10) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def add(self, key: str, number: int, chunks: list[int], audio: str, **more: Any) -> ShowRecord:
        stem = key.rpartition(".")[0]
        files = (f"{stem}.mp4", f"{stem}.mp4.json", f"{stem}.vtt")
        work, digests = str(self.work), {"audio": audio}
        known = {"files": files, "work": work, "render_id": digits(number), "digests": digests}
        show = a_show(key, **(known | more))
        for name in files:
            self.put(self.path / name)
        self.put(self.path / f"{stem}.mp4.json", json.dumps({"render_id": digits(number)}).encode())
        self.put(self.path / ".ledger/thumbs" / f"{show.show_id}.jpg")
        self.render(number, chunks, audio, str(self.path / f"{stem}.mp4"), key)
        self.put(self.work / f"features/{digits(number)}.npz")
        note = json.dumps({"audio": audio}).encode()
        self.put(self.work / f"features/{digits(number)}.json", note)
        self.put(self.work / f"stems/{digits(number)}/00000-drums.flac")
        self.put(self.work / f"stems/{digits(number)}/track.json", note)
        self.ledger.write(show)
        return show

    def render(
        self, number: int, chunks: list[int], audio: str, output: str, key: str = "x.mp3"
    ) -> None:
        manifest = Manifest(
            render_id=digits(number),
            spec={"output": output, "audio": str(self.source / key)},
            digests={"audio": audio, "features": "f"},
            fps=Fraction(60),
            size=(64, 48),
            numerics=Numerics("cpu", "float32", True, 4, 2, "2.9.0"),
            encoder=EncoderSettings("libx264", 18, "veryfast", 2, "9.0"),
            start=0,
            num_frames=10 * len(chunks),
            duration_s=Fraction(len(chunks), 6),
            chunks=tuple(
                Chunk(index, 10 * index, 10 * index + 10, digits(chunk))
                for index, chunk in enumerate(chunks)
            ),
        )
        WorkRoot(str(self.work)).write_manifest(manifest)
        self.put(self.work / f"renders/{digits(number)}/events/d-000000.jsonl")
        for chunk in chunks:
            for ending in ("json", "mp4"):
                self.put(self.work / f"segments/{digits(chunk)}.{ending}")

    def files(self) -> dict[str, bytes]:
        """All there is, and what is in it, but for the moment at which it was written."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name not in ("report.html", "index.parquet")
            and path.stem != self.show.show_id
        }  # fmt: skip

    def told(self) -> Iterator[str]:
        """Every file or folder that says anything of the show."""
        words = [KEY, TITLE, json.dumps(TITLE)[1:-1], digits(1), "a" * 64]
        for path in self.path.rglob("*"):
            content = path.read_bytes().decode(errors="replace") if path.is_file() else ""
            if path.suffix == ".parquet" and path.name.startswith("catalogue"):
                content = str(pq.read_table(path).to_pylist())
            if any(word in f"{path}{content}" for word in words):
                yield str(path)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "out")


def _event(key: str) -> bytes:
    return (json.dumps({"event": "show-done", "key": key}) + "\n").encode()


def test_nothing_tells_of_a_show_that_was_forgotten(archive: Archive) -> None:
    """A takedown is a promise: no file, no name, no line, no row of it is left."""
    before = set(archive.files())
    found = forget(archive.ledger, str(archive.path), KEY)
    assert list(archive.told()) == []
    record = archive.ledger.read_all()[archive.show.show_id]
    assert record == ShowRecord(archive.show.show_id, "forgotten", time=record.time)
    assert record.time
    gone = before - set(archive.files())
    assert gone == {
        "Nacht/Über den Wolken.mp4",
        "Nacht/Über den Wolken.mp4.json",
        "Nacht/Über den Wolken.vtt",
        f".asha/features/{digits(1)}.json",
        f".asha/features/{digits(1)}.npz",
        f".asha/stems/{digits(1)}/00000-drums.flac",
        f".asha/stems/{digits(1)}/track.json",
        f".asha/renders/{digits(1)}/events/d-000000.jsonl",
        f".asha/renders/{digits(1)}/render.json",
        *(f".asha/segments/{digits(n)}.{ending}" for n in (1, 2) for ending in ("json", "mp4")),
        f".ledger/names/{name_of('nacht/über den wolken')}.json",
        ".ledger/runs/run-1/events/d-000001.jsonl",
    }
    assert found.kept == ("1 segments: other renders need them",)
    assert {kind: len(uris) for kind, uris in found.removed.items()} == {
        "outputs": 3,
        "thumbnail": 1,
        "segments": 4,
        "features": 2,
        "stems": 2,
        "renders": 2,
    }
    assert found.num_bytes > 100


def test_what_runs_said_of_others_stays(archive: Archive) -> None:
    forget(archive.ledger, str(archive.path), KEY)
    run = Path(archive.ledger.folder, "runs", "run-1")
    assert (run / "events/d-000000.jsonl").read_bytes() == _event("Other/b.mp3")
    assert (run / "logs/d-000000.log").read_text() == "x  done: b\n"
    beat = json.loads((run / "heartbeat.json").read_text())
    assert (beat["in_hand"], beat["workers"]) == (["Other/b.mp3"], 2)
    assert "error" not in beat
    (row,) = pq.read_table(archive.path / "catalogue.parquet").to_pylist()
    assert row["path"] == "Other/b.mp3"
    assert "Other/b.mp4" in (archive.path / "report.html").read_text()


def test_a_dry_run_tells_the_same_and_touches_nothing(archive: Archive) -> None:
    """Who takes a show down wants to see first what goes."""
    before = archive.files()
    dry = forget(archive.ledger, str(archive.path), KEY, dry_run=True)
    assert archive.files() == before
    wet = forget(archive.ledger, str(archive.path), KEY)
    assert (dry.removed, dry.rewritten, dry.kept) == (wet.removed, wet.rewritten, wet.kept)
    assert (dry.num_bytes, dry.dry_run, wet.dry_run) == (wet.num_bytes, True, False)
    assert "would go: segments" in forgotten_text(dry)
    assert forgotten_text(wet).startswith(f"forgotten: show {archive.show.show_id}")
    assert forgotten_document(wet)["show_id"] == archive.show.show_id


class Crash(BaseException):
    """What a killed process would raise, if it could."""


def _crash_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the disk refuse everything after so many changes."""
    left = [count]

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(LocalStorage, name)

        def change(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return original(*args, **more)

        return change

    for name in ("write", "delete", "upload"):
        monkeypatch.setattr(LocalStorage, name, counted(name))


def test_a_takedown_that_was_interrupted_is_finished_by_the_same_command(
    tmp_path: Path, archive: Archive
) -> None:
    """At whatever step it is killed: it holds at once, and half of it can be repeated."""
    template = tmp_path / "template"
    shutil.copytree(archive.path, template)
    forget(archive.ledger, str(archive.path), KEY)
    expected = {name for name in archive.files() if name != "catalogue.parquet"}
    count = 0
    crashed = True
    while crashed:
        shutil.rmtree(archive.path)
        shutil.copytree(template, archive.path)
        with pytest.MonkeyPatch.context() as patch:
            _crash_after(patch, count)
            try:
                forget(archive.ledger, str(archive.path), KEY)
                crashed = False
            except Crash:
                pass
        state = archive.ledger.read(archive.show.show_id).state
        assert state == ("forgotten" if count else "done"), "the next run would make it again"
        forget(archive.ledger, str(archive.path), KEY)
        assert list(archive.told()) == []
        assert set(archive.files()) - {"catalogue.parquet"} == expected
        count += 1
    assert count > 15


def test_one_sound_twice_keeps_what_the_other_show_needs(archive: Archive) -> None:
    """A station stores a show under two names: taking one down must not break the other."""
    twin = archive.add("Other/twin.mp3", 1, [1, 2, 3], "a" * 64)
    before = set(archive.files())
    found = forget(archive.ledger, str(archive.path), KEY)
    gone = before - set(archive.files())
    assert {name.partition("/")[0] for name in gone} == {"Nacht", ".ledger"}
    assert found.kept == (
        "its features and stems: Other/twin.mp3 is of the same sound",
        f"render {digits(1)}: Other/twin.mp3 is of the same sound",
        "3 segments: other renders need them",
    )
    assert all((archive.path / name).exists() for name in twin.files)


def test_earlier_renders_of_its_video_go_too(archive: Archive) -> None:
    """A show that was made anew with other settings has left its first render behind."""
    output = str(archive.path / archive.show.output)
    archive.render(7, [70, 71], "a" * 64, output)
    forget(archive.ledger, str(archive.path), KEY)
    assert not (archive.work / f"renders/{digits(7)}").exists()
    assert not (archive.work / f"segments/{digits(70)}.mp4").exists()


def test_a_version_of_other_sound_under_another_name_goes_too(archive: Archive) -> None:
    """Sound file and title were changed: neither the video's name nor the audio is the same."""
    old = "Nacht/Under the Clouds.mp4"
    archive.render(7, [3, 70], "d" * 64, str(archive.path / old), KEY)
    archive.put(archive.work / f"features/{digits(7)}.npz")
    archive.put(
        archive.work / f"features/{digits(7)}.json", json.dumps({"audio": "d" * 64}).encode()
    )
    beside = ["Nacht/Under the Clouds.jpg", "Nacht/Under the Clouds.strip.jpg", f"{old}.json", old]
    for name in beside:
        archive.put(archive.path / name)
    archive.ledger.claim_name("nacht/under the clouds", archive.show.show_id)
    said = Path(archive.ledger.folder, "runs/run-1/logs/d-000001.log")
    archive.put(said, f"x  writing {old}\n".encode())
    forget(archive.ledger, str(archive.path), KEY)
    assert list(archive.told()) == []
    assert not said.exists()
    left = "\n".join(archive.files())
    assert not any(word in left for word in ("Nacht", digits(7), digits(70), "under the clouds"))
    assert f".asha/segments/{digits(3)}.mp4" in left, "the other show needs it"
    assert set(archive.ledger.claims().values()) == {archive.other.show_id}


def test_what_another_archive_made_of_the_sound_stays(archive: Archive, tmp_path: Path) -> None:
    """Two archives may share a work root, and only one of them takes the show down."""
    archive.render(7, [70], "d" * 64, str(tmp_path / "elsewhere/x.mp4"), KEY)
    forget(archive.ledger, str(archive.path), KEY)
    assert (archive.work / f"renders/{digits(7)}/render.json").exists()
    assert (archive.work / f"segments/{digits(70)}.mp4").exists()


def test_a_name_that_another_show_has_by_now_is_left_to_it(archive: Archive) -> None:
    """An earlier version had it; the other show's video lies there, though no record says so."""
    archive.render(7, [70], "d" * 64, str(archive.path / "Passed on.mp4"), KEY)
    archive.ledger.claim_name("passed on", show_id_of("young.mp3"))
    archive.put(archive.path / "Passed on.mp4")
    forget(archive.ledger, str(archive.path), KEY)
    assert (archive.path / "Passed on.mp4").exists()
    assert not (archive.work / f"renders/{digits(7)}").exists()


def _kill_before_its_record(archive: Archive) -> None:
    """Let a show be what its driver left that was killed after its video was published."""
    Path(archive.ledger.folder, "runs/run-1/logs/d-000000.log").unlink()
    (archive.path / ".ledger/shows" / f"{archive.show.show_id}.json").unlink()
    archive.publish()


def test_a_show_that_never_had_a_record_is_taken_down_by_its_path(archive: Archive) -> None:
    """Its video is there for everyone to see; nothing but a claim and a render tells whose."""
    _kill_before_its_record(archive)
    (archive.path / "Nacht/Über den Wolken.vtt").unlink()  # which no release writes any more
    found = forget(archive.ledger, str(archive.path), KEY)
    assert f"{archive.path}/Nacht/Über den Wolken.mp4" in found.removed["outputs"]
    assert list(archive.told()) == []
    assert not (archive.path / "Nacht").exists()
    assert archive.ledger.read(archive.show.show_id).state == "forgotten"
    assert set(archive.ledger.claims().values()) == {archive.other.show_id}


def test_a_path_without_a_record_is_no_part_of_another(archive: Archive) -> None:
    """`a.mp3` was never done and `a.mp3.ogg` was: the wrong one must not go."""
    archive.add("a.mp3.ogg", 7, [70], "d" * 64)
    archive.put(archive.source / "a.mp3")
    found = forget(archive.ledger, str(archive.path), "a.mp3")
    assert (found.show_id, found.removed) == (show_id_of("a.mp3"), {})
    assert (archive.path / "a.mp3.mp4").exists()
    assert archive.ledger.read(show_id_of("a.mp3")).state == "forgotten", "it is never made"


def test_what_a_run_left_after_the_takedown_goes_with_the_same_command(archive: Archive) -> None:
    """The run had the show in hand on another machine, and nobody had heard of that yet."""
    forget(archive.ledger, str(archive.path), KEY)
    archive.render(7, [70], "d" * 64, str(archive.path / archive.show.output), KEY)
    archive.ledger.claim_name("nacht/über den wolken", archive.show.show_id)
    archive.put(archive.path / archive.show.output)
    assert set(forget(archive.ledger, str(archive.path), KEY).removed) == {
        "outputs",
        "segments",
        "renders",
    }
    assert list(archive.told()) == []


class During(NullProgress):
    """Lets something happen when a stage begins."""

    def __init__(self, name: str, happen: Callable[[], object]) -> None:
        self._name, self._happen = name, happen

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        if name == self._name:
            self._happen()


def test_a_show_that_ends_meanwhile_is_in_the_catalogue(archive: Archive) -> None:
    """The index would tell the next run that all is told, and it would stay missing."""
    young = During("looking at runs", lambda: archive.add("Young/c.mp3", 8, [80], "e" * 64))
    forget(archive.ledger, str(archive.path), KEY, progress=young)
    rows = pq.read_table(archive.path / "catalogue.parquet").to_pylist()
    assert [row["path"] for row in rows] == ["Other/b.mp3", "Young/c.mp3"]
    assert "Young/c.mp4" in (archive.path / "report.html").read_text()
    assert is_told(archive.ledger.read_all(), str(archive.path))


def test_the_show_is_taken_down_as_a_run_has_left_it_just_now(archive: Archive) -> None:
    """It was done anew, under another name, while all records were read."""

    def done_anew() -> None:
        archive.put(archive.path / "New.mp4")
        archive.ledger.write(replace(archive.show, output="New.mp4", files=("New.mp4",)))

    again = During("looking at names", done_anew)
    forget(archive.ledger, str(archive.path), KEY, progress=again)
    assert not (archive.path / "New.mp4").exists()


def test_a_show_that_failed_leaves_nothing_either(archive: Archive) -> None:
    """It may have no video and no render, and its path is in the ledger all the same."""
    key = "Nacht/torn.mp3"
    archive.ledger.write(a_show(key, "parked", reason=f"reading {key}: torn"))
    found = forget(archive.ledger, str(archive.path), "torn")
    assert found.removed == {}
    assert archive.ledger.read_all()[show_id_of(key)].key == ""


def test_a_show_that_a_run_is_at_is_refused(archive: Archive) -> None:
    """The run would publish what was just taken down."""
    a_run(archive.ledger.folder, "run-2", heard_s=1, in_hand=[KEY])
    before = archive.files()
    with pytest.raises(JobError, match=r"a run on node-1 .* is at it; wait until it has ended"):
        forget(archive.ledger, str(archive.path), KEY)
    assert archive.files() == before
    assert forget(archive.ledger, str(archive.path), "Other/b.mp3").removed


def test_a_show_that_somebody_renders_is_refused(archive: Archive) -> None:
    beat = {"state": "running", "time": now(), "host": "laptop"}
    folder = archive.work / "renders" / digits(1)
    archive.put(folder / "heartbeat.json", json.dumps(beat).encode())
    with pytest.raises(JobError, match="somebody renders it on laptop; wait until that has ended"):
        forget(archive.ledger, str(archive.path), KEY)


def test_an_earlier_version_that_somebody_renders_is_refused(archive: Archive) -> None:
    """The show has no record of it, and it would publish after the takedown."""
    archive.render(7, [70], "d" * 64, str(archive.path / "Old.mp4"), KEY)
    beat = {"state": "running", "time": now(), "host": "laptop"}
    archive.put(archive.work / f"renders/{digits(7)}/heartbeat.json", json.dumps(beat).encode())
    before = archive.files()
    with pytest.raises(JobError, match="somebody renders it on laptop"):
        forget(archive.ledger, str(archive.path), KEY)
    assert archive.files() == before
    assert archive.ledger.read(archive.show.show_id) == archive.show


@pytest.mark.parametrize("name", [".ledger/shows/other.json", ".Asha/segments/x.mp4"])
def test_a_record_cannot_have_other_files_deleted(archive: Archive, name: str) -> None:
    """A record is a file that anybody with the bucket may have written."""
    show = a_show("x.mp3", files=("x.mp4", name))
    archive.ledger.write(show)
    before = archive.files()
    with pytest.raises(StorageError, match=r"which is no show's; the record is damaged"):
        forget(archive.ledger, str(archive.path), "x.mp3")
    assert archive.files() == before
    assert archive.ledger.read(show.show_id) == show


@pytest.mark.parametrize("name", ["../outside.mp4", "/etc/passwd"])
def test_a_damaged_record_is_not_believed(archive: Archive, name: str) -> None:
    """Its show is taken down by what else is known of it, and nothing outside is touched."""
    archive.put(archive.path / "../outside.mp4")
    show = a_show("x.mp3", files=("x.mp4", "x.jpg"))
    archive.ledger.write(show)
    path = archive.path / ".ledger" / "shows" / f"{show.show_id}.json"
    path.write_text(path.read_text().replace("x.jpg", name))
    assert forget(archive.ledger, str(archive.path), "x.mp3").removed == {}
    assert (archive.path / "../outside.mp4").exists()
    assert archive.ledger.read(show_id_of("x.mp3")).state == "forgotten"


SHOWS = {
    show.show_id: show for show in map(a_show, ("a/1.mp3", "a/2.mp3", "b/1.mp3", "a/1.mp3.ogg"))
}


@pytest.mark.parametrize(
    ("show", "key"),
    [
        (show_id_of("a/2.mp3"), "a/2.mp3"),
        ("a/1.mp3", "a/1.mp3"),
        ("b/1.mp4", "b/1.mp3"),
        ("b/", "b/1.mp3"),
        (show_id_of("a/2.mp3")[:12], "a/2.mp3"),
    ],
    ids=["id", "path", "output", "part", "part of an id"],
)
def test_a_show_is_found_by_what_it_is_called(show: str, key: str) -> None:
    assert find_show(SHOWS, show).key == key


def test_a_show_that_is_not_one_is_not_guessed() -> None:
    """A takedown of the wrong show cannot be taken back."""
    with pytest.raises(NotFoundError, match=r"show 'c/9': the archive has none of that id"):
        find_show(SHOWS, "c/9")
    with pytest.raises(NotFoundError, match="none of that id"):
        find_show(SHOWS, "")
    with pytest.raises(JobError, match=r"4 have that \('a/1.mp3', .*'b/1.mp3' …\); give more"):
        find_show(SHOWS, ".mp")


def test_a_show_that_is_forgotten_is_found_by_its_path(archive: Archive) -> None:
    """Its path is nowhere any more; whoever repeats the command must not be told of a mistake."""
    forget(archive.ledger, str(archive.path), KEY)
    assert forget(archive.ledger, str(archive.path), KEY).removed == {}
