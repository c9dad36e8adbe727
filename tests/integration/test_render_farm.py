"""Renders on a real Ray and without: the same frames, exact times, nothing left behind."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

import asha_ray
from asha_ray.errors import EncodeError, FarmError, StorageError
from asha_ray.farm.rendering import scheduler
from asha_ray.farm.rendering.render import RenderResult

TOLD = r"frames 60 to 89 failed 3 times: .* on purpose\n2 of 6 chunks are finished and kept"
RATES = ["24", "25", "30", "30000/1001", "60"]
Frames = Callable[[Path], np.ndarray]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_no_temporaries(*folders: Path) -> None:
    left = [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith(".tmp") or path.name.startswith((".asha-", "asha-"))
    ]
    assert left == []


def serial(track: Path, model: Path, out: Path, **options: Any) -> RenderResult:
    return asha_ray.render(track, model=model, out=out, executor="serial", **options)


@pytest.fixture(scope="module")
def reference(
    track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RenderResult]:
    """The serial render that others are compared with: half-second chunks, lossless."""
    out = tmp_path_factory.mktemp("reference") / "v.mp4"
    return out, serial(track, model, out, crf=0, chunk_seconds=0.5)


class TestSameFrames:
    @pytest.mark.parametrize("fps", ["60", "30000/1001"])
    def test_chunk_boundaries_cannot_be_found(
        self, fps: str, track: Path, model: Path, tmp_path: Path, decoded: Frames
    ) -> None:
        videos = []
        for name, chunk_seconds in (("many", 1), ("odd", 0.37), ("one", 100)):
            out = tmp_path / name / "v.mp4"
            result = serial(track, model, out, crf=0, fps=fps, chunk_seconds=chunk_seconds)
            assert (result.chunks == 1) == (name == "one")
            videos.append(decoded(out))

        many, odd, one = videos
        assert len(np.unique(one.reshape(len(one), -1), axis=0)) > 0.9 * len(one)
        np.testing.assert_array_equal(many, one)
        np.testing.assert_array_equal(odd, one)

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(120)
    def test_ray_gives_what_one_process_gives(
        self, reference: tuple[Path, RenderResult], track: Path, model: Path, tmp_path: Path,
        decoded: Frames,
    ) -> None:  # fmt: skip
        out = tmp_path / "v.mp4"

        result = asha_ray.render(track, model=model, out=out, crf=0, chunk_seconds=0.5)

        expected, expected_result = reference
        assert result.reused_chunks == 0
        assert result.render_id == expected_result.render_id
        np.testing.assert_array_equal(decoded(out), decoded(expected))
        assert sha256(out) == sha256(expected)

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(60)
    def test_two_workers_give_what_one_gives(
        self, reference: tuple[Path, RenderResult], track: Path, model: Path, tmp_path: Path
    ) -> None:
        """On two CPUs the two workers must leave room for the analysis, or all wait for ever."""
        out = tmp_path / "v.mp4"

        asha_ray.render(track, model=model, out=out, crf=0, chunk_seconds=0.5, workers=2)

        assert sha256(out) == sha256(reference[0])
        records = (tmp_path / ".asha" / "segments").glob("*.json")
        assert len(list(records)) == reference[1].chunks

    def test_a_range_looks_as_it_does_in_the_whole(
        self, reference: tuple[Path, RenderResult], track: Path, model: Path, tmp_path: Path,
        decoded: Frames,
    ) -> None:  # fmt: skip
        result = serial(track, model, tmp_path / "v.mp4", crf=0, start=0.85, duration=1.02)

        first = round(0.85 * 60)
        assert result.frames == ceil(Fraction("1.02") * 60)
        whole = decoded(reference[0])
        np.testing.assert_array_equal(
            decoded(tmp_path / "v.mp4"), whole[first : first + result.frames]
        )

    def test_a_range_has_its_own_sound(self, track: Path, model: Path, tmp_path: Path) -> None:
        serial(track, model, tmp_path / "v.mp4", start=0.85, duration=1.02)

        heard = _heard(tmp_path / "v.mp4")
        samples, rate = soundfile.read(track)
        part = samples[round(0.85 * rate) : round(0.85 * rate) + len(heard)]
        correlation = np.corrcoef(heard[: len(part), 0], part[: len(heard), 0])[0, 1]
        assert correlation > 0.95

    def test_a_track_that_is_copied_is_heard_as_it_is(
        self, track: Path, model: Path, tmp_path: Path
    ) -> None:
        from tests import media

        song = media.convert(track, tmp_path / "song.mp3", "-c:a", "libmp3lame")
        out = tmp_path / "v.mp4"
        serial(song, model, out, sound="copy")

        assert asha_ray.inspect(out).problems == ()
        assert json.loads(Path(f"{out}.json").read_text())["sound"] == "copied mp3"
        heard, original = _heard(out), _heard(song)
        assert 0 <= len(original) - len(heard) < 22  # an mp4 ends at a whole millisecond
        np.testing.assert_array_equal(heard, original[: len(heard)])


def _heard(path: Path) -> np.ndarray:
    from tests import media

    return media.decode_with_ffmpeg(path, 2, 22050)


class TestTimes:
    @pytest.mark.parametrize("fps", RATES)
    def test_every_frame_is_exactly_one_frame_after_the_last(
        self, fps: str, track: Path, model: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "v.mp4"

        result = serial(track, model, out, fps=fps, chunk_seconds=0.7)

        info = soundfile.info(track)
        duration_s = Fraction(info.frames, info.samplerate)
        found = asha_ray.inspect(out)
        assert found.problems == ()
        assert result.frames == found.report.frames == ceil(duration_s * Fraction(fps))
        assert found.report.fps == Fraction(fps)
        assert set(found.report.timestamp_steps) == {Fraction(1)}
        assert found.report.audio_start_s == 0
        gap = found.report.audio_duration_s - found.report.video_duration_s
        assert abs(gap) <= 1 / Fraction(fps)
        assert result.chunks == ceil(result.frames / round(Fraction("0.7") * Fraction(fps)))
        assert found.report.pictures.num_decoded == result.frames

    @pytest.mark.parametrize("seconds", [0.001, 0.02, 0.2])
    @pytest.mark.parametrize("fps", ["24", "60"])
    def test_the_shortest_videos(
        self, seconds: float, fps: str, track: Path, model: Path, tmp_path: Path
    ) -> None:
        result = serial(track, model, tmp_path / "v.mp4", fps=fps, duration=seconds)

        assert result.frames == ceil(Fraction(str(seconds)) * Fraction(fps))
        found = asha_ray.inspect(tmp_path / "v.mp4")
        assert found.report.frames == result.frames
        assert found.problems == ()

    @pytest.mark.parametrize(
        "options",
        [
            {"codec": "libx265", "preset": "ultrafast"},
            {"codec": "libsvtav1", "preset": "ultrafast"},
            {"codec": "auto"},
            {"size": "96x54", "fit": "pad"},
            {"size": "20x36", "fit": "crop", "preset": "slow"},
        ],
        ids=str,
    )
    def test_other_encoders_and_sizes(
        self, options: dict[str, str], track: Path, model: Path, tmp_path: Path
    ) -> None:
        serial(track, model, tmp_path / "v.mp4", duration=1, chunk_seconds=0.4, **options)

        found = asha_ray.inspect(tmp_path / "v.mp4")
        assert found.problems == ()
        if "size" in options:
            assert "{}x{}".format(*found.report.size) == options["size"]


class TestReuse:
    def test_the_same_work_is_never_done_twice(
        self, track: Path, model: Path, tmp_path: Path
    ) -> None:
        work = tmp_path / "work"
        options = {"work": work, "chunk_seconds": 0.5}
        first = serial(track, model, tmp_path / "a.mp4", **options)
        second = serial(track, model, tmp_path / "b.mp4", **options)
        finer = serial(track, model, tmp_path / "c.mp4", crf=17, **options)
        part = serial(track, model, tmp_path / "d.mp4", start=0.5, duration=1, **options)

        assert (first.reused_chunks, second.reused_chunks) == (0, first.chunks)
        assert second.render_id == first.render_id
        assert sha256(tmp_path / "a.mp4") == sha256(tmp_path / "b.mp4")
        assert finer.reused_chunks == 0
        assert (part.chunks, part.reused_chunks) == (2, 2)

    def test_a_lost_segment_alone_is_made_anew(
        self, track: Path, model: Path, tmp_path: Path
    ) -> None:
        options = {"work": tmp_path / "work", "chunk_seconds": 0.5}
        first = serial(track, model, tmp_path / "v.mp4", **options)
        before = sha256(tmp_path / "v.mp4")
        segments = sorted((tmp_path / "work" / "segments").glob("*.mp4"))
        segments[0].unlink()
        segments[1].write_bytes(b"torn")

        again = serial(track, model, tmp_path / "v.mp4", **options)

        assert again.reused_chunks == first.chunks - 2
        assert sha256(tmp_path / "v.mp4") == before

    def test_changed_segments_alone_are_made_anew(
        self, track: Path, model: Path, tmp_path: Path, recorder: Any
    ) -> None:
        """The same size with another byte: only reading it tells, which is when it is joined."""
        options = {"work": tmp_path / "work", "chunk_seconds": 0.5}
        first = serial(track, model, tmp_path / "v.mp4", **options)
        segments = sorted((tmp_path / "work" / "segments").glob("*.mp4"))
        for segment in segments[1:3]:
            content = bytearray(segment.read_bytes())
            content[len(content) // 2] ^= 255
            segment.write_bytes(content)
        untouched = segments[0].stat().st_mtime_ns

        again = serial(track, model, tmp_path / "w.mp4", progress=recorder, **options)

        assert again.reused_chunks == first.chunks - 2
        assert sha256(tmp_path / "w.mp4") == sha256(tmp_path / "v.mp4")
        assert segments[0].stat().st_mtime_ns == untouched
        assert any("has changed since it was rendered" in note for note in recorder.notes)
        assert any("it and 1 more are rendered again" in note for note in recorder.notes)

    def test_on_a_smaller_machine_it_is_the_same_render(
        self, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A driver of another size must be able to go on where the first was killed."""
        from asha_ray.farm import cores

        options = {"work": tmp_path / "work", "chunk_seconds": 0.5, "duration": 1}
        results = []
        for num_cores in (8, 1):
            monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _, n=num_cores: range(n))
            results.append(serial(track, model, tmp_path / f"{num_cores}.mp4", **options))

        assert results[0].render_id == results[1].render_id
        assert results[1].reused_chunks == results[1].chunks

    def test_fresh_renders_all_again(self, track: Path, model: Path, tmp_path: Path) -> None:
        options = {"work": tmp_path / "work", "chunk_seconds": 0.5, "duration": 1}
        serial(track, model, tmp_path / "v.mp4", **options)
        records = list((tmp_path / "work" / "segments").glob("*.json"))
        before = {path: path.stat().st_mtime_ns for path in records}

        again = serial(track, model, tmp_path / "w.mp4", fresh=True, **options)

        assert again.reused_chunks == 0
        assert all(path.stat().st_mtime_ns > before[path] for path in records)
        assert sha256(tmp_path / "w.mp4") == sha256(tmp_path / "v.mp4")

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(120)
    def test_on_ray_what_a_serial_render_left_is_used(
        self, track: Path, model: Path, tmp_path: Path
    ) -> None:
        options = {"work": tmp_path / "work", "chunk_seconds": 0.5}
        first = serial(track, model, tmp_path / "a.mp4", **options)

        second = asha_ray.render(track, model=model, out=tmp_path / "b.mp4", **options)

        assert second.reused_chunks == first.chunks
        assert sha256(tmp_path / "a.mp4") == sha256(tmp_path / "b.mp4")


class TestRecord:
    def test_stands_beside_the_video_and_tells_what_made_it(
        self, reference: tuple[Path, RenderResult], track: Path, model: Path
    ) -> None:
        out, result = reference

        record = json.loads(Path(f"{out}.json").read_text())

        assert record["sha256"] == sha256(out)
        assert record["frames"] == result.frames
        assert record["render_id"] == result.render_id
        assert record["spec"]["audio"] == str(track)
        assert record["digests"]["audio"] == sha256(track)
        assert names(out.parent) == {"v.mp4", "v.mp4.json", ".asha"}
        assert_no_temporaries(out.parent)

    def test_the_work_root_holds_what_the_design_says(
        self, reference: tuple[Path, RenderResult]
    ) -> None:
        out, result = reference
        work = out.parent / ".asha"

        assert names(work) == {"features", "renders", "segments"}
        manifest = json.loads((work / "renders" / result.render_id / "render.json").read_text())
        assert manifest["frames"] == result.frames
        for start, stop, chunk_id in manifest["chunks"]:
            record = json.loads((work / "segments" / f"{chunk_id}.json").read_text())
            segment = work / "segments" / f"{chunk_id}.mp4"
            assert record["frames"] == stop - start
            assert record["sha256"] == sha256(segment)

    def test_the_video_follows_the_path(self, reference: tuple[Path, RenderResult]) -> None:
        found = asha_ray.inspect(reference[0])

        assert found.motion_correlation >= 0.6
        assert found.distinct_share >= 0.9

    def test_work_may_be_deleted(
        self, reference: tuple[Path, RenderResult], tmp_path: Path
    ) -> None:
        moved = shutil.copy(reference[0], tmp_path / "moved.mp4")
        shutil.copy(f"{reference[0]}.json", tmp_path / "moved.mp4.json")

        assert asha_ray.inspect(moved).problems == ()


class TestFailure:
    """A failed render leaves nothing at its output, and keeps what was finished."""

    @pytest.fixture
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        import tempfile

        folder = tmp_path / "temporary"
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        return folder

    def test_success_leaves_no_temporaries(
        self, temporary: Path, track: Path, model: Path, tmp_path: Path
    ) -> None:
        serial(track, model, tmp_path / "out" / "v.mp4", duration=0.5)

        assert names(temporary) == set()
        assert_no_temporaries(tmp_path / "out")

    def test_a_foreign_segment_with_a_record_of_its_own(
        self, temporary: Path, track: Path, model: Path, tmp_path: Path, recorder: Any
    ) -> None:
        """It is all that its record says, and yet no video: it is rendered again, and said so."""
        work = tmp_path / "work"
        options = {"work": work, "chunk_seconds": 0.5}
        serial(track, model, tmp_path / "a.mp4", **options)
        segment = min((work / "segments").glob("*.mp4"))
        segment.write_bytes(b"this is no video")
        record = json.loads(segment.with_suffix(".json").read_text())
        record |= {"sha256": sha256(segment), "bytes": segment.stat().st_size}
        segment.with_suffix(".json").write_text(json.dumps(record))

        serial(track, model, tmp_path / "b.mp4", progress=recorder, **options)

        assert sha256(tmp_path / "b.mp4") == sha256(tmp_path / "a.mp4")
        assert any("it is rendered again" in note for note in recorder.notes)
        assert names(temporary) == set()

    def test_segments_that_are_damaged_again_and_again_end_the_render(
        self, temporary: Path, track: Path, model: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        from asha_ray.storage.local import LocalStorage

        plain = LocalStorage.download

        def damage(self: LocalStorage, uri: str, path: Path) -> None:
            plain(self, uri, path)
            if uri.endswith(".mp4"):
                path.write_bytes(path.read_bytes()[:-1])

        monkeypatch.setattr(LocalStorage, "download", damage)
        out = tmp_path / "out"

        with pytest.raises(EncodeError, match="it has changed since it was rendered"):
            serial(track, model, out / "v.mp4", work=tmp_path / "work", duration=0.5)

        assert names(out) == set()
        assert names(temporary) == set()

    def test_an_older_video_stays_where_the_new_one_fails(
        self, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "v.mp4"
        serial(track, model, out, duration=0.5)
        before = sha256(out)

        def fail(*_: object) -> int:
            raise EncodeError("joining segments: on purpose")

        monkeypatch.setattr("asha_ray.farm.rendering.assemble.stitch", fail)
        with pytest.raises(EncodeError, match="on purpose"):
            serial(track, model, out, duration=0.6)

        assert sha256(out) == before
        assert asha_ray.inspect(out).problems == ()

    def test_an_encoder_that_dies(
        self, temporary: Path, track: Path, model: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, descendants: Callable[[str], list[psutil.Process]],
    ) -> None:  # fmt: skip
        from asha_ray.video import encode

        monkeypatch.setattr(encode, "_codec_arguments", lambda _: ["-no-such-option", "1"])

        with pytest.raises(EncodeError, match=r"ffmpeg ended with code .*no-such-option"):
            serial(track, model, tmp_path / "v.mp4", crf=11)

        assert not (tmp_path / "v.mp4").exists()
        assert names(temporary) == set()
        assert descendants("rawvideo") == []

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(120)
    def test_on_ray_where_segments_cannot_be_stored(
        self, track: Path, model: Path, tmp_path: Path, workers_temporary: Path
    ) -> None:
        work = tmp_path / "work"
        work.mkdir()
        (work / "segments").write_text("a file where a folder should be")

        with pytest.raises(StorageError, match=r"a part of the path is a file") as caught:
            asha_ray.render(track, model=model, out=tmp_path / "v.mp4", work=work)

        assert "Traceback" not in str(caught.value)
        assert not (tmp_path / "v.mp4").exists()
        assert_no_temporaries(tmp_path, workers_temporary)

    def test_what_is_finished_is_kept_and_said(
        self, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from asha_ray.farm.rendering.worker import ChunkRenderer

        plain = ChunkRenderer.render
        calls = []

        def fail_at_third(self: ChunkRenderer, *arguments: Any) -> Any:
            calls.append(1)
            if len(calls) >= 3:  # a failing encoder is tried again
                raise EncodeError("encoding: on purpose")
            return plain(self, *arguments)

        monkeypatch.setattr(ChunkRenderer, "render", fail_at_third)
        options = {"work": tmp_path / "work", "chunk_seconds": 0.5}
        with pytest.raises(FarmError, match=TOLD):
            serial(track, model, tmp_path / "v.mp4", **options)
        monkeypatch.undo()

        assert serial(track, model, tmp_path / "v.mp4", **options).reused_chunks == 2


class TestEncoderFailure:
    """A disk may be full for a moment, a process killed by mistake: the chunk is tried again."""

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("executor", ["serial", "ray"])
    def test_a_killed_ffmpeg_changes_nothing(
        self, executor: str, track: Path, model: Path, tmp_path: Path, recorder: Any,
        descendants: Callable[[str], list[psutil.Process]],
    ) -> None:  # fmt: skip
        slow = {"size": "640x480", "preset": "slower", "chunk_seconds": 1.3, "crf": 20}
        expected = serial(track, model, tmp_path / "a.mp4", work=tmp_path / "a", **slow)
        killed: list[int] = []
        ended = threading.Event()

        def kill() -> None:
            while not killed and not ended.wait(0.01):
                for process in descendants("rawvideo")[:1]:
                    process.kill()
                    killed.append(process.pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            asha_ray.render(
                track, model=model, out=tmp_path / "b.mp4", work=tmp_path / "b",
                executor=executor, progress=recorder, **slow,
            )  # fmt: skip
        finally:
            ended.set()
            killer.join()

        assert killed
        assert sha256(tmp_path / "b.mp4") == sha256(tmp_path / "a.mp4")
        if executor == "serial":
            assert recorder.done["rendering"] == expected.frames, "frames are counted twice"

    def test_one_that_always_fails_ends_the_render_with_its_last_words(
        self, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempts = []

        def fail(*_: object) -> int:
            attempts.append(1)
            raise EncodeError("encoding: ffmpeg ended with code 1: No space left on device")

        monkeypatch.setattr("asha_ray.farm.rendering.worker.encode_segment", fail)
        with pytest.raises(EncodeError, match="No space left on device"):
            serial(track, model, tmp_path / "v.mp4")

        assert len(attempts) == 3


class TestKinds:
    @pytest.fixture
    def planned_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A render planned for machines that these are not."""
        from dataclasses import replace

        from asha_ray.farm.rendering import numerics as module

        plain = module.choose

        def choose(*arguments: Any) -> Any:
            numerics, said = plain(*arguments)
            return replace(numerics, kind="cpu-abacus"), said

        monkeypatch.setattr(module, "choose", choose)

    @pytest.mark.usefixtures("local_ray", "planned_elsewhere")
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("executor", ["serial", "ray"])
    def test_a_worker_of_another_kind_renders_nothing_unless_that_is_wanted(
        self, executor: str, track: Path, model: Path, tmp_path: Path
    ) -> None:
        options = {"model": model, "out": tmp_path / "v.mp4", "executor": executor, "duration": 1}
        with pytest.raises(FarmError, match=r"planned for cpu-abacus .*--allow-mixed"):
            asha_ray.render(track, **options)

        assert asha_ray.render(track, allow_mixed=True, **options).frames == 60

    def test_what_was_chosen_is_said_and_in_the_manifest(
        self, track: Path, model: Path, tmp_path: Path, recorder: Any
    ) -> None:
        result = serial(track, model, tmp_path / "v.mp4", duration=1, progress=recorder)

        manifest = tmp_path / ".asha" / "renders" / result.render_id / "render.json"
        numerics = json.loads(manifest.read_text())["numerics"]
        assert any(note.startswith(f"decoding in {numerics['dtype']}") for note in recorder.notes)
        assert numerics["kind"].startswith("cpu-")
        assert numerics["threads"] == 1


SLOW = {"size": "640x480", "preset": "slower", "chunk_seconds": 0.4, "crf": 20}


@pytest.fixture(scope="module")
def undisturbed(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the video that nobody's death has touched."""
    out = tmp_path_factory.mktemp("undisturbed") / "v.mp4"
    serial(track, model, out, **SLOW)
    return sha256(out)


@pytest.mark.usefixtures("local_ray")
class TestLostWorkers:
    @pytest.mark.slow
    @pytest.mark.timeout(240)
    @pytest.mark.parametrize("num_kills", [1, 3])
    def test_a_killed_worker_changes_nothing(
        self, num_kills: int, undisturbed: str, track: Path, model: Path, tmp_path: Path,
        descendants: Callable[[str], list[psutil.Process]],
    ) -> None:  # fmt: skip
        killed: list[int] = []
        ended = threading.Event()

        def kill() -> None:
            while len(killed) < num_kills and not ended.is_set():
                for process in descendants("ray::RenderActor.render"):
                    if process.pid not in killed:
                        process.kill()
                        killed.append(process.pid)
                        break
                time.sleep(0.05)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            result = asha_ray.render(track, model=model, out=tmp_path / "v.mp4", **SLOW)
        finally:
            ended.set()
            killer.join()

        assert len(killed) == num_kills
        assert result.reused_chunks == 0
        assert sha256(tmp_path / "v.mp4") == undisturbed
        assert_no_temporaries(tmp_path)

    @pytest.mark.slow
    @pytest.mark.timeout(240)
    def test_a_chunk_that_kills_every_worker_is_blamed(
        self, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        descendants: Callable[[str], list[psutil.Process]],
    ) -> None:  # fmt: skip
        # Between starts that came to nothing; half a minute after a few of them.
        monkeypatch.setattr(scheduler, "LONGEST_PAUSE_S", 0.5)
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.02):
                for process in descendants("ray::RenderActor.render"):
                    process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(FarmError, match="10 workers died over it"):
                asha_ray.render(track, model=model, out=tmp_path / "v.mp4", **SLOW)
        finally:
            ended.set()
            killer.join()

        assert not (tmp_path / "v.mp4").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_cpu_is_enough(track: Path, model: Path, tmp_path: Path) -> None:
    """An actor must not hold the only CPU while the analysis waits for it."""
    import subprocess
    import sys

    program = (
        "import logging, ray, sys, asha_ray.farm.on_ray.runtime, asha_ray\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False,\n"
        "         logging_level=logging.ERROR, object_store_memory=100 << 20)\n"
        "asha_ray.render(sys.argv[1], model=sys.argv[2], out=sys.argv[3])\n"
    )
    command = [sys.executable, "-c", program, str(track), str(model), str(tmp_path / "v.mp4")]

    subprocess.run(command, check=True, timeout=240, cwd=Path(__file__).parents[2])

    assert asha_ray.inspect(tmp_path / "v.mp4").problems == ()
