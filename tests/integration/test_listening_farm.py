"""Listening on the farm: stems and blocks as tasks, kept once made, the same on Ray and without."""

import functools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import asha_ray
from asha_ray.audio.parallel import map_in_threads
from asha_ray.errors import AudioError, SpecError, StorageError
from asha_ray.farm.listening import analysis as analysis_module
from asha_ray.farm.listening import stems as stems_module
from asha_ray.farm.on_ray import executor as ray_executor
from asha_ray.farm.on_ray.ray_map import map_on_ray
from asha_ray.values import PcmStream
from tests import media
from tests.unit.audio.stems.bundles import random_model, write_bundle

RATE = 16_000
SECONDS = 40
PART_S = 10


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds, in two channels."""
    samples = media.music(SECONDS + 0.0123, RATE, 2)
    return media.write_sound(tmp_path_factory.mktemp("song") / "song.wav", samples, RATE)


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five parts of the song."""
    monkeypatch.setattr(stems_module, "PART_S", PART_S)


@pytest.fixture(scope="module")
def spleeter_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder / "2stems", random_model("2stems"))
    return folder


@pytest.fixture
def num_separated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The parts that this process separates, in order."""
    done: list[int] = []
    separate = stems_module.separate_part

    def counted(separator: Any, part: Any) -> Any:
        done.append(part.number)
        return separate(separator, part)

    monkeypatch.setattr(stems_module, "separate_part", counted)
    return done


def equal(one: Any, other: Any) -> bool:
    """Whether two `Features` are the same to the last bit."""
    names = [name for name in vars(one) if name != "stems"]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names) and (
        one.stems.keys() == other.stems.keys()
        and all(equal(part, other.stems[stem]) for stem, part in one.stems.items())
    )


def kill_one_at_work(descendants: Callable[[str], list]) -> None:
    """Kill a worker that has a task in hand, as soon as there is one."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in descendants("ray::_call"):
            process.kill()
            return
        time.sleep(0.005)
    pytest.fail("no worker was seen at work")


def note_down(folder: Path, pause_s: float, item: int) -> int:
    time.sleep(pause_s if item else 0)
    (folder / f"{item}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return item * item


@pytest.mark.usefixtures("local_ray")
class TestMapOnRay:
    def test_results_come_in_order(self, tmp_path: Path) -> None:
        found = list(map_on_ray(2)(functools.partial(note_down, tmp_path, 0), range(7)))
        assert found == [item * item for item in range(7)]
        pids = {path.name.split("-")[1] for path in tmp_path.iterdir()}
        assert str(os.getpid()) not in pids

    def test_a_few_stay_in_this_process(self, tmp_path: Path) -> None:
        function = functools.partial(note_down, tmp_path, 0)
        assert list(map_on_ray(2, few=3)(function, range(3))) == [0, 1, 4]
        assert {path.name.split("-")[1] for path in tmp_path.iterdir()} == {str(os.getpid())}

    def test_no_more_is_asked_for_than_is_worked_on(self, tmp_path: Path) -> None:
        asked = []

        def items() -> Any:
            for item in range(100):
                asked.append(item)
                yield item

        results = map_on_ray(2)(functools.partial(note_down, tmp_path, 0), items())
        assert next(results) == 0
        assert len(asked) <= 4
        results.close()

    def test_an_expected_error_is_itself(self, tmp_path: Path) -> None:
        def fail(_: int) -> int:
            raise AudioError("reading audio x: it is noise; give music")

        with pytest.raises(AudioError, match="it is noise"):
            list(map_on_ray(2)(fail, [1]))

    def test_a_killed_worker_costs_its_own_item(
        self, tmp_path: Path, descendants: Callable[[str], list]
    ) -> None:
        """Killing one in the middle must not throw away what others have finished."""
        found = []
        for result in map_on_ray(2)(functools.partial(note_down, tmp_path, 0.7), range(8)):
            found.append(result)
            if result == 0:
                kill_one_at_work(descendants)
        assert found == [item * item for item in range(8)]
        done = [path.name.split("-")[0] for path in tmp_path.iterdir()]
        assert set(done) == {str(item) for item in range(8)}
        assert len(done) <= 9, "no more than one was done twice"


@pytest.mark.usefixtures("short_parts")
class TestStems:
    def test_serial_and_ray_hear_the_same(
        self, song: Path, tmp_path: Path, local_ray: None
    ) -> None:
        options = {"stems": "hpss", "fps": "30000/1001"}
        serial = asha_ray.analyze(song, executor="serial", **options)
        on_ray = asha_ray.analyze(song, executor="ray", **options)
        assert list(serial.stems) == ["harmonic", "percussive"]
        assert serial.stems["percussive"].num_frames == serial.num_frames
        assert equal(serial, on_ray)

    def test_a_second_run_separates_nothing(
        self, song: Path, tmp_path: Path, num_separated: list[int]
    ) -> None:
        options = {"executor": "serial", "work": tmp_path / "work"}
        first = asha_ray.analyze(song, stems="hpss", **options)
        assert sorted(num_separated) == [0, 1, 2, 3, 4]
        again = asha_ray.analyze(song, stems="hpss", **options)
        other = asha_ray.analyze(song, stem="percussive", decay_rate=0.1, fps=25, **options)
        asha_ray.stems(song, out=tmp_path / "out", separator="hpss", **options)
        assert len(num_separated) == 5
        assert equal(first, again)
        assert list(other.stems) == ["percussive"]

    def test_no_model_stays_when_the_stems_are_there(
        self, song: Path, tmp_path: Path, spleeter_models: Path
    ) -> None:
        """160 MB, in a program that goes on to do other things."""
        options = {"stem": "vocals", "stems_model": "2stems", "model_dir": spleeter_models}
        asha_ray.analyze(song, executor="serial", **options)
        assert stems_module.separator_of.cache_info().currsize == 0

    def test_while_parts_are_separated_no_features_are_held(
        self, song: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They grow with the track: what follows from the whole waits, on disk, till the end."""
        events: list[str] = []
        separate, finish = stems_module.separate_part, analysis_module._Listener._finish

        def separated(separator: Any, part: Any) -> Any:
            events.append("part")
            return separate(separator, part)

        def finished(listener: Any, source: str, heard: Any) -> None:
            events.append("source")
            finish(listener, source, heard)

        monkeypatch.setattr(stems_module, "separate_part", separated)
        monkeypatch.setattr(analysis_module._Listener, "_finish", finished)
        asha_ray.analyze(song, executor="serial", stems="hpss")
        assert events == 5 * ["part"] + 3 * ["source"]

    def test_stems_on_several_machines_need_a_place_that_all_see(
        self, song: Path, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker elsewhere would write into a folder that the driver never sees."""
        monkeypatch.setattr(ray_executor, "is_one_machine", lambda: False)
        with pytest.raises(SpecError, match=r"several machines.*--work"):
            asha_ray.analyze(song, stems="hpss", executor="ray")
        asha_ray.analyze(song, stems="hpss", executor="ray", out=tmp_path / "f.npz")

    def test_what_was_separated_before_a_crash_is_kept(
        self, song: Path, tmp_path: Path, num_separated: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if the driver had been killed after two parts."""
        options = {"executor": "serial", "work": tmp_path / "work", "separator": "hpss"}
        commit, committed = stems_module.StemStore.commit, []

        def commit_two(store: Any, part: Any, paths: Any) -> None:
            if len(committed) == 2:
                raise StorageError("writing: the disk is full; free some space")
            committed.append(part.number)
            commit(store, part, paths)

        with monkeypatch.context() as patch:
            patch.setattr(stems_module.StemStore, "commit", commit_two)
            with pytest.raises(StorageError, match="disk is full"):
                asha_ray.stems(song, out=tmp_path / "out", **options)
        assert not list((tmp_path / "out").glob("*"))
        del num_separated[:]
        asha_ray.stems(song, out=tmp_path / "out", **options)
        assert sorted(num_separated) == sorted({0, 1, 2, 3, 4} - set(committed))

    @pytest.mark.usefixtures("local_ray")
    def test_a_killed_worker_changes_nothing(
        self, song: Path, tmp_path: Path, descendants: Callable[[str], list],
        workers_temporary: Path,
    ) -> None:  # fmt: skip
        choice = stems_module.SeparatorChoice("hpss")
        options = {"separator": "hpss", "executor": "serial"}
        expected = asha_ray.stems(song, out=tmp_path / "serial", **options)
        samples = soundfile.read(song, dtype="float32")[0]
        source = PcmStream(RATE, 2, iter([samples]))
        parts = []
        for part in stems_module.separate_track(
            choice, source, str(tmp_path / "work"), "key", map_on_ray(2)
        ):
            parts.append(part)
            if part.number == 0:
                kill_one_at_work(descendants)
        assert [part.number for part in parts] == [0, 1, 2, 3, 4]
        assert parts[-1].stop == len(samples)
        for stem, uri in expected.stems.items():
            stream = stems_module.stem_stream(iter(parts), stem, str(tmp_path / "work"), "key")
            found = np.concatenate(list(stream.blocks))
            np.testing.assert_array_equal(found, soundfile.read(uri, dtype="float32")[0])
        for path in workers_temporary.glob("asha-stems-*"):
            shutil.rmtree(path)  # who is killed cannot put away

    def test_threads_and_one_after_the_other_are_the_same(self, song: Path, tmp_path: Path) -> None:
        samples = soundfile.read(song, dtype="float32")[0]
        choice = stems_module.SeparatorChoice("hpss")
        digests = []
        for name, spread in (("one", map), ("threads", map_in_threads(3))):
            source = PcmStream(RATE, 2, iter([samples]))
            parts = stems_module.separate_track(choice, source, str(tmp_path / name), "k", spread)
            digests.append([sorted(file.sha256 for file in part.files.values()) for part in parts])
        assert digests[0] == digests[1]

    def test_blocks_in_tasks_and_spleeter_on_ray_are_the_same(
        self,
        song: Path,
        spleeter_models: Path,
        local_ray: None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Long tracks are measured in tasks; a network's sums must not hang on who adds them."""
        monkeypatch.setattr(ray_executor, "FEW_BLOCKS", 0)
        options = {"stem": "vocals", "stems_model": "2stems", "model_dir": spleeter_models}
        serial = asha_ray.analyze(song, executor="serial", **options)
        on_ray = asha_ray.analyze(song, executor="ray", **options)
        assert equal(serial, on_ray)

    @pytest.mark.parametrize("executor", ["serial", "ray"])
    def test_a_failure_leaves_nothing_at_work(
        self, song: Path, tmp_path: Path, executor: str, monkeypatch: pytest.MonkeyPatch,
        local_ray: None,
    ) -> None:  # fmt: skip
        """Parts in hand must not go on behind an error, nor store what nobody will clean up."""

        def fail(*_: Any) -> None:
            raise StorageError("reading the stem x: it is gone; run it again")

        monkeypatch.setattr(stems_module.StemStore, "fetch", fail)
        work = tmp_path / "work"
        with pytest.raises(StorageError, match="it is gone"):
            asha_ray.analyze(song, stem="percussive", executor=executor, work=work)
        if executor == "serial":
            stored = sorted(work.rglob("*"))
            time.sleep(0.3)
            assert sorted(work.rglob("*")) == stored
            assert not [thread for thread in threading.enumerate() if "asha" in thread.name]

    def test_a_mix_that_fails_ends_the_stems_and_is_told(
        self, song: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise AudioError("reading audio x: it is noise; give music")

        monkeypatch.setattr(analysis_module._Listener, "_mix", fail)
        with pytest.raises(AudioError, match="it is noise"):
            asha_ray.analyze(song, stem="percussive", executor="serial")

    @pytest.mark.parametrize("damage", ["note empty", "note without its number", "file torn"])
    def test_features_that_were_torn_are_measured_again(
        self, song: Path, tmp_path: Path, damage: str
    ) -> None:
        options = {"executor": "serial", "work": tmp_path / "work", "stem": "percussive"}
        first = asha_ray.analyze(song, **options)
        for path in (tmp_path / "work" / "features").iterdir():
            if path.suffix == ".json" and damage.startswith("note"):
                path.write_text("" if damage == "note empty" else "{}")
            elif path.suffix == ".npz" and damage == "file torn":
                path.write_bytes(path.read_bytes()[:100])
        assert equal(asha_ray.analyze(song, **options), first)


class TestStemsCommand:
    def test_each_stem_is_a_lossless_file_as_long_as_the_track(
        self, song: Path, tmp_path: Path
    ) -> None:
        result = asha_ray.stems(song, out=tmp_path / "stems", executor="serial")
        sound, rate = soundfile.read(song, dtype="float32")
        stems = {stem: soundfile.read(uri, dtype="float32") for stem, uri in result.stems.items()}
        assert result.separator == "hpss"
        assert result.duration_s == len(sound) / rate
        assert all(found[1] == rate for found in stems.values())
        assert all(found[0].shape == sound.shape for found in stems.values())
        total = sum(found[0] for found in stems.values())
        assert np.abs(total - sound).max() < 1e-4
        assert {path.name for path in (tmp_path / "stems").iterdir()} == {
            "harmonic.wav",
            "percussive.wav",
        }

    def test_damaged_samples_are_told(self, tmp_path: Path, cli: Any) -> None:
        samples = media.music(1.0, RATE)
        samples[100:200], samples[300] = np.nan, np.inf
        soundfile.write(tmp_path / "s.wav", samples, RATE, subtype="FLOAT")
        for _ in range(2):  # the second finds the stems there
            answer = cli("stems", tmp_path / "s.wav", "--out", tmp_path / "o", "--executor=serial")
            assert answer.code == 0
            assert "101 damaged samples" in answer.err

    def test_spleeter_by_its_published_files(
        self, song: Path, tmp_path: Path, spleeter_models: Path
    ) -> None:
        result = asha_ray.stems(
            song,
            out=tmp_path / "stems",
            stems_model="2stems",
            model_dir=spleeter_models,
            executor="serial",
        )
        assert (result.separator, list(result.stems)) == ("spleeter", ["vocals", "accompaniment"])
        assert soundfile.info(result.stems["vocals"]).frames == soundfile.info(song).frames

    def test_the_model_is_known_by_its_files(
        self, song: Path, tmp_path: Path, spleeter_models: Path
    ) -> None:
        """Who names a folder that holds a model need not say which."""
        result = asha_ray.stems(
            song, out=tmp_path / "stems", model_dir=spleeter_models / "2stems", executor="serial"
        )
        assert list(result.stems) == ["vocals", "accompaniment"]

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (("--stems-model", "2stems"), ("asha-ray stems --fetch 2stems",)),
            (("--device", "mps"), ("--fetch 4stems",)),
        ],
        ids=["a model", "a device"],
    )
    def test_who_asks_for_spleeter_gets_no_other(
        self, song: Path, tmp_path: Path, cli: Any, options: tuple, parts: tuple
    ) -> None:
        answer = cli("stems", song, "--out", tmp_path / "s", *options)
        assert answer.code == 2
        assert all(part in answer.err for part in parts)

    def test_a_device_that_is_not_there_is_told(
        self, song: Path, tmp_path: Path, spleeter_models: Path, cli: Any
    ) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is one")
        answer = cli(
            *("stems", song, "--out", tmp_path / "s", "--device", "cuda"),
            *("--model-dir", spleeter_models / "2stems"),
        )
        assert answer.code == 2
        assert "--device cpu" in answer.err

    def test_a_model_and_nothing_to_separate(self, song: Path, tmp_path: Path, cli: Any) -> None:
        answer = cli("analyze", song, "--out", tmp_path / "f.npz", "--stems-model", "2stems")
        assert answer.code == 2
        assert "give --stem or --stems too" in answer.err

    def test_without_a_model_the_remedy_is_named(
        self, song: Path, tmp_path: Path, cli: Any
    ) -> None:
        answer = cli(
            *("stems", song, "--out", tmp_path / "s", "--separator", "spleeter"),
            *("--model-dir", tmp_path / "nowhere"),
        )
        assert answer.code == 2
        assert "asha-ray stems --fetch 4stems" in answer.err
        assert "--model-dir" in answer.err
        assert not (tmp_path / "s").exists()

    def test_it_says_what_it_lacks(self, song: Path, cli: Any) -> None:
        for arguments in ((), (song,), ("--out", "x")):
            answer = cli("stems", *arguments)
            assert answer.code == 2
            assert "--out" in answer.err

    @pytest.mark.parametrize("kind", ["missing", "folder", "text"])
    def test_what_is_no_sound_leaves_nothing(self, kind: str, tmp_path: Path, cli: Any) -> None:
        source = tmp_path / "s.wav"
        if kind == "folder":
            source.mkdir()
        elif kind == "text":
            source.write_text("la la la")
        answer = cli("stems", source, "--out", tmp_path / "out", "--executor", "serial")
        assert answer.code == 2
        assert str(source) in answer.err
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


class TestRenderByAStem:
    def test_a_stem_drives_the_motion_and_the_mix_is_heard(
        self, song: Path, model: Path, tmp_path: Path
    ) -> None:
        options = {"model": model, "executor": "serial", "fps": 24, "duration": 4}
        by_mix = asha_ray.render(song, out=tmp_path / "mix.mp4", **options)
        by_stem = asha_ray.render(song, out=tmp_path / "stem.mp4", stem="percussive", **options)
        assert by_stem.render_id != by_mix.render_id
        one, other = (asha_ray.inspect(tmp_path / name) for name in ("mix.mp4", "stem.mp4"))
        assert one.problems == other.problems == ()
        assert one.report.audio_duration_s == other.report.audio_duration_s
        assert other.motion_correlation > 0.6, "inspect follows the stem's path too"

    def test_a_path_is_driven_by_the_stem_of_a_features_file(
        self, song: Path, model: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "f.npz"
        features = asha_ray.analyze(song, out=file, stems="hpss", executor="serial")
        by_mix, by_stem = (
            asha_ray.path(file, model=model, stem=stem) for stem in ("mix", "percussive")
        )
        assert by_mix.shape == by_stem.shape == (features.num_frames, 4)
        assert not np.array_equal(by_mix, by_stem)
        with pytest.raises(asha_ray.AshaError, match=r"no stem bass .*mix, harmonic, percussive"):
            asha_ray.path(file, model=model, stem="bass")

    def test_spleeter_in_a_bucket(
        self, song: Path, model: Path, spleeter_models: Path, bucket: str, tmp_path: Path
    ) -> None:
        """Workers may lie anywhere, so the separator's model may, too."""
        import boto3

        name, _, prefix = bucket.removeprefix("s3://").partition("/")
        for path in (spleeter_models / "2stems").iterdir():
            boto3.client("s3").upload_file(str(path), name, f"{prefix}/2stems/{path.name}")
        asha_ray.render(
            song,
            model=model,
            out=tmp_path / "v.mp4",
            work=f"{bucket}/work",
            stem="vocals",
            stems_model="2stems",
            model_dir=f"{bucket}/2stems",
            executor="serial",
            fps=24,
            duration=1,
        )
        assert asha_ray.inspect(tmp_path / "v.mp4").problems == ()
