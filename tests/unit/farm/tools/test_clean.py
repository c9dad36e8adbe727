"""`clean`: what a render needs stays, whatever happens meanwhile; what nobody needs goes."""

import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

import asha_ray
from asha_ray.cli.main import app
from asha_ray.cli.report import clean_text
from asha_ray.errors import NotFoundError, SpecError, StorageError
from asha_ray.farm.tools import clean as module
from asha_ray.farm.tools.needed import Survey
from asha_ray.progress import NullProgress
from asha_ray.scratch import scratch_file
from asha_ray.storage.local import LocalStorage
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, EncoderSettings, Manifest, Numerics

DAY_S = 86_400
OLD_S = 30 * DAY_S


def key(number: int) -> str:
    """Forty hexadecimal digits, as all names of a work root have."""
    return f"{number:040x}"


class Root:
    """A work root that is filled by hand.

    Args:
        path: of it.
        videos: a folder for finished videos.
    """

    def __init__(self, path: Path, videos: Path) -> None:
        self.path, self.videos = path, videos
        videos.mkdir()

    def put(self, name: str, content: bytes = b"x" * 10, age_s: float = 0) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    def segment(self, number: int) -> list[str]:
        names = [f"segments/{key(number)}.{ending}" for ending in ("json", "mp4")]
        for name in names:
            self.put(name)
        return names

    def features(self, number: int, audio: str | None, age_s: float = OLD_S) -> list[str]:
        note = {"num_replaced": 0} | ({} if audio is None else {"audio": audio})
        self.put(f"features/{key(number)}.npz", age_s=age_s)
        self.put(f"features/{key(number)}.json", json.dumps(note).encode(), age_s)
        return [f"features/{key(number)}.{ending}" for ending in ("json", "npz")]

    def stems(self, number: int, audio: str | None, age_s: float = OLD_S) -> list[str]:
        note = {"parts": 1} | ({} if audio is None else {"audio": audio})
        folder = f"stems/{key(number)}"
        for name in ("00000-drums.flac", "00000.json"):
            self.put(f"{folder}/{name}", age_s=age_s)
        self.put(f"{folder}/track.json", json.dumps(note).encode(), age_s)
        return [f"{folder}/{name}" for name in ("00000-drums.flac", "00000.json", "track.json")]

    def render(
        self,
        number: int,
        chunks: list[int],
        *,
        state: str = "stopped",
        heard_s: float | None = OLD_S,
        video: bool = False,
        output: str | None = None,
        audio: str = "a" * 64,
        features: str = "",
    ) -> str:
        """A render's folder, and its video if it has one; returns its id."""
        render_id, output = key(number), output or str(self.videos / f"{number}.mp4")
        manifest = Manifest(
            render_id=render_id,
            spec={"output": output},
            digests={"audio": audio, "features": features},
            fps=Fraction(60),
            size=(64, 48),
            numerics=Numerics("cpu", "float32", True, 4, 2, "2.9.0"),
            encoder=EncoderSettings("libx264", 18, "veryfast", 2, "9.0"),
            start=0,
            num_frames=10 * len(chunks),
            duration_s=Fraction(len(chunks), 6),
            chunks=tuple(
                Chunk(index, 10 * index, 10 * index + 10, key(chunk))
                for index, chunk in enumerate(chunks)
            ),
        )
        WorkRoot(str(self.path)).write_manifest(manifest)
        self.put(f"renders/{render_id}/events/d-000000.jsonl", b'{"event": "x"}\n', OLD_S)
        os.utime(self.path / f"renders/{render_id}/render.json", (time.time() - OLD_S,) * 2)
        if heard_s is not None:
            self.heartbeat(number, state, heard_s)
        if video:
            Path(output).write_bytes(b"video")
            Path(f"{output}.json").write_text(json.dumps({"render_id": render_id}))
        return render_id

    def heartbeat(self, number: int, state: str, heard_s: float) -> None:
        said = datetime.now(UTC) - timedelta(seconds=heard_s)
        data = {"render_id": key(number), "state": state, "time": said.isoformat()}
        self.put(f"renders/{key(number)}/heartbeat.json", json.dumps(data).encode())

    def names(self) -> set[str]:
        return {
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if path.is_file()
        }

    def size(self) -> int:
        return sum((self.path / name).stat().st_size for name in self.names())

    def clean(self, **options: object) -> module.CleanResult:
        return asha_ray.clean(self.path, **{"delete": True, **options})

    def state_of(self, number: int, **options: object) -> str:
        """`finished` and so on, and whether it is kept."""
        renders = self.clean(delete=False, **options).renders
        found = next(render for render in renders if render.render_id == key(number))
        return f"{found.state}, {'kept' if found.kept else 'goes'}"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "work", tmp_path / "videos")


@pytest.fixture
def crowded(root: Root) -> Iterator[Root]:
    """Some of everything: render 1 is finished, 2 was given up, 3 runs; 90 and above is waste."""
    root.render(1, [10, 11], state="done", video=True, features=key(20))
    root.render(2, [11, 91], audio="b" * 64)
    root.render(3, [12, 13], state="running", heard_s=5)
    for number in (10, 11, 12, 90, 91):
        root.segment(number)
    root.put(f"segments/{key(13)}.mp4")
    root.put(f"segments/{key(92)}.mp4")
    root.put(f"segments/{key(93)}.json")
    root.features(20, None)
    root.features(21, "a" * 64)
    root.features(94, "b" * 64)
    root.stems(30, "a" * 64)
    root.stems(95, "b" * 64)
    root.put("segments/.asha-left.tmp", b"half")
    root.put(f"renders/{key(2)}/worker.log")
    root.put("notes.txt")
    root.put("segments/cover.mp4")
    root.put("renders/readme")
    return root


WASTE = (*map(key, range(90, 96)), f"renders/{key(2)}/", ".asha-left")


def snapshot(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Every file and folder, with all that would tell of a touch."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_size)
        for path in (folder, *folder.rglob("*"))
    }


def test_only_what_nobody_needs_is_deleted(crowded: Root) -> None:
    before = crowded.names()
    result = crowded.clean()
    gone = before - crowded.names()
    assert gone == {name for name in before if any(part in name for part in WASTE)}
    assert not (crowded.path / "renders" / key(2)).exists(), "an empty folder is left"
    assert not (crowded.path / "stems" / key(95)).exists()
    assert result.deleted
    assert not result.blocked


def test_a_second_time_there_is_nothing_to_do(crowded: Root) -> None:
    crowded.clean()
    before = snapshot(crowded.path)
    assert crowded.clean().freed_bytes == 0
    assert snapshot(crowded.path) == before


def test_without_delete_nothing_is_touched(crowded: Root) -> None:
    before = snapshot(crowded.path.parent)
    result = crowded.clean(delete=False)
    assert snapshot(crowded.path.parent) == before
    assert not result.deleted
    assert result.freed_bytes > 0


def test_what_would_be_freed_is_what_is_freed(crowded: Root) -> None:
    promised, before = crowded.clean(delete=False).freed_bytes, crowded.size()
    result = crowded.clean()
    assert before - crowded.size() == result.freed_bytes == promised
    assert sum(count.unneeded_bytes for count in result.counts.values()) == promised


def test_things_are_counted_by_kind(crowded: Root) -> None:
    counts = crowded.clean(delete=False).counts
    found = {kind: (count.needed, count.unneeded) for kind, count in counts.items()}
    assert found == {
        "segments": (4, 4),
        "features": (2, 1),
        "stems": (1, 1),
        "renders": (2, 1),
        "jobs": (0, 0),
        "temporaries": (0, 1),
    }
    assert (counts["segments"].needed_bytes, counts["segments"].unneeded_bytes) == (70, 60)


def test_what_a_manifest_names_is_needed_and_not_merely_kept(crowded: Root) -> None:
    """Features of earlier versions say nothing of their track, and their render does."""
    assert crowded.clean(delete=False).kept == ()


def test_jobs_and_what_was_sent_along_with_them_are_kept(crowded: Root) -> None:
    """Somebody may look at a job, or repeat it, for as long as it is there."""
    for name in ("jobs/1/job.json", "inputs/ab.wav", "training/model/settings.json"):
        (crowded.path / name).parent.mkdir(parents=True)
        (crowded.path / name).write_text("1")
    result = crowded.clean()
    assert result.counts["jobs"].needed == 3
    told = {Path(uri).relative_to(crowded.path).as_posix() for uri in result.foreign}
    assert not {"jobs/1/job.json", "inputs/ab.wav", "training/model/settings.json"} & told
    assert {"jobs/1/job.json", "inputs/ab.wav"} <= crowded.names()


def test_foreign_files_are_left_and_told(crowded: Root) -> None:
    result = crowded.clean()
    told = {Path(uri).relative_to(crowded.path).as_posix() for uri in result.foreign}
    assert told == {"notes.txt", "segments/cover.mp4", "renders/readme"}
    assert told <= crowded.names()


class TestStates:
    """Which renders are needed."""

    def test_a_finished_one_is_kept_for_ever(self, root: Root) -> None:
        root.render(1, [10], state="done", video=True)
        assert root.state_of(1, keep_days=0) == "finished, kept"

    def test_without_its_video_it_is_finished_no_more(self, root: Root) -> None:
        root.render(1, [10], state="done", video=True)
        (root.videos / "1.mp4").unlink()
        assert root.state_of(1) == "unfinished, goes"

    @pytest.mark.parametrize("record", [None, b"", b"[1]", b"{", b'{"render_id": "another"}'])
    def test_a_video_whose_record_does_not_name_it_is_not_its_own(
        self, root: Root, record: bytes | None
    ) -> None:
        root.render(1, [10], state="done", video=True)
        beside = root.videos / "1.mp4.json"
        beside.unlink() if record is None else beside.write_bytes(record)
        assert root.state_of(1) == "unfinished, goes"

    @pytest.mark.parametrize(
        ("heard_days", "keep_days", "expected"),
        [
            (6.9, 7, "unfinished, kept"),
            (7.1, 7, "unfinished, goes"),
            (0.01, 0, "unfinished, goes"),
            (100, float("inf"), "unfinished, kept"),
        ],
    )
    @pytest.mark.parametrize("state", ["running", "failed", "stopped", "done"])
    def test_an_unfinished_one_is_kept_for_days(
        self, root: Root, state: str, heard_days: float, keep_days: float, expected: str
    ) -> None:
        """A driver that was killed says `running` for ever; its time tells."""
        root.render(1, [10], state=state, heard_s=heard_days * DAY_S)
        assert root.state_of(1, keep_days=keep_days) == expected

    def test_one_that_never_said_a_word_is_as_old_as_its_files(self, root: Root) -> None:
        root.render(1, [10], heard_s=None)
        assert root.state_of(1, keep_days=31) == "unfinished, kept"
        assert root.state_of(1, keep_days=29) == "unfinished, goes"

    def test_a_running_one_is_kept(self, root: Root) -> None:
        root.render(1, [10], state="running", heard_s=30)
        assert root.state_of(1, keep_days=0) == "running, kept"

    def test_a_folder_that_was_moved_with_its_video_is_still_finished(self, tmp_path: Path) -> None:
        (tmp_path / "show").mkdir()
        root = Root(tmp_path / "show" / ".asha", tmp_path / "show" / "videos")
        root.render(1, [10], video=True, output=str(tmp_path / "show" / "v.mp4"))
        (tmp_path / "show").rename(tmp_path / "archive")
        root.path = tmp_path / "archive" / ".asha"
        assert root.state_of(1) == "finished, kept"

    def test_an_output_that_cannot_be_asked_for_counts_as_there(self, root: Root) -> None:
        root.render(1, [10], output="gs://bucket/v.mp4")
        root.segment(10)
        before = root.names()
        result = root.clean(keep_days=0)
        assert root.names() == before
        assert result.renders[0].kept
        assert "gs:// is not supported" in result.renders[0].reason

    def test_another_machines_disk_cannot_be_asked(self) -> None:
        """The work is in a bucket, the video on the laptop of whoever made it."""
        bucket, disk = Survey("s3://bucket/work", 0), Survey("/work", 0)
        other = {"host": "laptop"}
        assert "it was made on laptop" in bucket._unreachable(["/home/me/v.mp4"], other)
        assert not bucket._unreachable(["s3://bucket/v.mp4"], other)
        assert not bucket._unreachable(["/home/me/v.mp4"], {"host": platform.node()})
        assert not disk._unreachable(["/home/me/v.mp4"], other)


class TestHeard:
    """Features and stems, which know their track and no render."""

    @pytest.fixture(params=["features", "stems"])
    def put(self, request: pytest.FixtureRequest, root: Root):
        return getattr(root, request.param)

    def test_old_ones_without_a_mark_stay_while_a_render_is_kept(self, root: Root, put) -> None:
        names = put(50, None)
        root.render(1, [10], video=True)
        result = root.clean()
        assert set(names) <= root.names()
        assert any("by an earlier asha-ray" in why for why in result.kept)

    @pytest.mark.parametrize(("age_days", "stay"), [(6, True), (8, False)])
    def test_and_go_by_age_when_none_is(self, root: Root, put, age_days: int, stay: bool) -> None:
        names = put(50, None, age_days * DAY_S)
        root.clean()
        assert (set(names) <= root.names()) == stay
        assert stay or not set(names) & root.names()

    def test_what_is_heard_just_now_stays(self, root: Root, put) -> None:
        """A render that listens has no heartbeat yet; a long track takes hours."""
        names = put(50, "c" * 64, 600)
        result = root.clean(keep_days=0)
        assert set(names) <= root.names()
        assert any("younger than an hour" in why for why in result.kept)

    def test_a_torn_note_tells_nothing(self, root: Root) -> None:
        root.features(50, None)
        root.put(f"features/{key(50)}.json", b"{", OLD_S)
        root.render(1, [10], video=True)
        root.clean()
        assert f"features/{key(50)}.npz" in root.names()


class TestUnknown:
    """What renders need is not known: then nothing that may be needed goes."""

    def broken(self, root: Root, kind: str) -> Path:
        path = root.path / "renders" / key(4) / "render.json"
        root.render(4, [90])
        if kind == "too new":
            path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
        elif kind == "damaged":
            path.write_bytes(path.read_bytes()[:50])
        else:  # it has just begun, and its manifest is not written yet
            path.unlink()
            root.heartbeat(4, "running", 1)
        return path.parent

    @pytest.mark.parametrize("kind", ["too new", "damaged", "just begun"])
    def test_only_temporaries_go(self, crowded: Root, kind: str) -> None:
        self.broken(crowded, kind)
        before = crowded.names()
        result = crowded.clean(keep_days=0)
        assert before - crowded.names() == {"segments/.asha-left.tmp"}
        assert result.blocked
        assert {kind for kind, count in result.counts.items() if count.unneeded} == {"temporaries"}

    def test_the_remedy_is_told_and_works(self, crowded: Root) -> None:
        folder = self.broken(crowded, "too new")
        result = crowded.clean()
        assert any(f"delete {folder} by hand" in why for why in result.kept)
        assert "only temporaries may go" in clean_text(result)
        (folder / "render.json").unlink()
        assert not crowded.clean().blocked
        assert f"segments/{key(90)}.mp4" not in crowded.names()


class AtDeletion(NullProgress):
    """Lets something happen between the look and the first deletion."""

    def __init__(self, happen) -> None:
        self.happen, self.notes = happen, []

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        if name == "deleting":
            self.happen()

    def note(self, message: str) -> None:
        self.notes.append(message)


class TestRaces:
    """Renders begin and go on while a work root is cleaned."""

    def test_what_a_render_needs_that_began_meanwhile_is_spared(self, crowded: Root) -> None:
        before = []

        def begin() -> None:
            crowded.render(5, [90], state="running", heard_s=0, audio="b" * 64)
            before.append(crowded.size())

        progress = AtDeletion(begin)
        result = crowded.clean(progress=progress)
        assert result.freed_bytes == before[0] - crowded.size()
        kept = {f"segments/{key(90)}.mp4", f"segments/{key(90)}.json"}
        kept |= {f"features/{key(94)}.npz", f"stems/{key(95)}/track.json"}
        assert kept <= crowded.names()
        assert f"segments/{key(91)}.mp4" not in crowded.names()
        assert any("were spared" in note for note in progress.notes)

    def test_a_render_that_goes_on_meanwhile_keeps_its_folder(self, crowded: Root) -> None:
        progress = AtDeletion(lambda: crowded.heartbeat(2, "running", 0))
        crowded.clean(progress=progress)
        assert {f"renders/{key(2)}/render.json", f"segments/{key(91)}.mp4"} <= crowded.names()

    def test_a_manifest_that_cannot_be_read_stops_it_even_then(self, crowded: Root) -> None:
        folder = crowded.path / "renders" / key(6)

        def begin() -> None:
            folder.mkdir()
            (folder / "render.json").write_text('{"version": 99}')

        before = crowded.names()
        assert crowded.clean(progress=AtDeletion(begin)).blocked
        assert {name for name in before if "segments/0" in name} <= crowded.names()

    def test_it_is_looked_again_as_time_goes_by(
        self, crowded: Root, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hundred thousand segments take half an hour in a bucket."""
        monkeypatch.setattr(module, "BATCH", 1)
        monkeypatch.setattr(module, "LOOK_AGAIN_S", -1)
        real, begun = LocalStorage.delete, []

        def delete(self: LocalStorage, uri: str) -> None:
            real(self, uri)
            if uri.endswith(f"{key(90)}.mp4") and not begun:
                begun.append(crowded.render(5, [91, 92, 93], state="running", heard_s=0))

        monkeypatch.setattr(LocalStorage, "delete", delete)
        crowded.clean()
        assert begun
        assert {f"segments/{key(91)}.mp4", f"segments/{key(93)}.json"} <= crowded.names()

    def test_nothing_promises_what_is_gone(
        self, crowded: Root, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Records go before files, and a manifest after all else of its render."""
        real, order = LocalStorage.delete, []

        def delete(self: LocalStorage, uri: str) -> None:
            order.append(Path(uri).relative_to(crowded.path).as_posix())
            real(self, uri)

        monkeypatch.setattr(LocalStorage, "delete", delete)
        crowded.clean()

        def place(name: str) -> int:
            return order.index(name)

        assert place(f"segments/{key(90)}.json") < place(f"segments/{key(90)}.mp4")
        assert place(f"features/{key(94)}.json") < place(f"features/{key(94)}.npz")
        stems = [name for name in order if name.startswith("stems/")]
        assert [Path(name).name for name in stems] == [
            "track.json",
            "00000.json",
            "00000-drums.flac",
        ]
        renders = [name for name in order if name.startswith("renders/")]
        assert [Path(name).name for name in renders[-2:]] == ["heartbeat.json", "render.json"]
        assert max(place(name) for name in order if "segments/" in name) < place(renders[0])

    @pytest.mark.parametrize("number", [1, 4, 9, 14, 16])
    def test_one_that_was_interrupted_can_be_repeated(
        self, crowded: Root, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        before, real, deleted = crowded.names(), LocalStorage.delete, []

        def delete(self: LocalStorage, uri: str) -> None:
            deleted.append(uri)
            if len(deleted) >= number:
                raise StorageError(f"deleting {uri}: the disk is gone")
            real(self, uri)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "delete", delete)
            with pytest.raises(StorageError, match="the disk is gone"):
                crowded.clean()
        crowded.clean()
        left = {name for name in before if not any(part in name for part in WASTE)}
        assert crowded.names() == left

    def test_a_temporary_that_somebody_holds_stays(self, root: Root) -> None:
        root.put("segments/.asha-left.tmp", b"half")
        with scratch_file(root.path / "segments") as held:
            result = root.clean()
            assert held.exists()
        assert result.counts["temporaries"].unneeded == 1
        assert root.names() == set()


class TestRoots:
    """What is a work root."""

    def test_a_folder_that_is_none_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match=r"no work root is there; give the folder") as error:
            asha_ray.clean(tmp_path / "none")
        assert error.value.exit_code == 2

    def test_the_folder_of_the_video_is_nearly_right(self, tmp_path: Path) -> None:
        (tmp_path / ".asha" / "segments").mkdir(parents=True)
        with pytest.raises(NotFoundError, match=rf"{tmp_path}/\.asha is one"):
            asha_ray.clean(tmp_path, delete=True)

    def test_an_empty_one_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "segments").mkdir()
        assert asha_ray.clean(tmp_path, delete=True).freed_bytes == 0

    @pytest.mark.parametrize("days", [-1, float("nan")])
    def test_days_are_a_number_of_days(self, root: Root, days: float) -> None:
        root.put("segments/x")
        with pytest.raises(SpecError, match="keep_days"):
            root.clean(keep_days=days)

    def test_a_relative_path_is_fine(self, crowded: Root, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(crowded.path.parent)
        assert asha_ray.clean("work").counts == crowded.clean(delete=False).counts


class TestCommand:
    """What people and programs are told."""

    def run(self, *arguments: object):
        return CliRunner().invoke(app, ["clean", *map(str, arguments)])

    def test_people_are_told_what_would_be_freed(self, crowded: Root) -> None:
        done = self.run(crowded.path)
        assert done.exit_code == 0
        assert "nothing was touched: --delete would free" in done.stdout
        assert f"{key(1)[:12]}  kept  {crowded.videos}/1.mp4" in done.stdout
        assert f"segments/{key(90)}.mp4" in crowded.names()
        assert "were freed" in self.run(crowded.path, "--delete").stdout
        assert f"segments/{key(90)}.mp4" not in crowded.names()

    def test_programs_are_told_all(self, crowded: Root) -> None:
        done = self.run(crowded.path, "--keep-days", 100, "--json")
        told = json.loads(done.stdout)
        assert told["deleted"] is False
        assert told["keep_days"] == 100
        assert told["counts"]["renders"] == {
            "needed": 3,
            "needed_bytes": told["counts"]["renders"]["needed_bytes"],
            "unneeded": 0,
            "unneeded_bytes": 0,
        }
        states = {render["render_id"]: render["state"] for render in told["renders"]}
        assert states == {key(1): "finished", key(2): "unfinished", key(3): "running"}
        assert all(render["reason"] for render in told["renders"])

    def test_a_deletion_that_could_not_be_is_a_failure(self, crowded: Root) -> None:
        crowded.put(f"renders/{key(4)}/render.json", b"{")
        assert self.run(crowded.path).exit_code == 0
        assert self.run(crowded.path, "--delete").exit_code == 1

    def test_many_renders_are_not_all_shown(self, root: Root) -> None:
        for number in range(25):
            root.render(number, [10])
        text = self.run(root.path).stdout
        assert text.count("  goes  ") == 20
        assert "and 5 more renders; see --json" in text
