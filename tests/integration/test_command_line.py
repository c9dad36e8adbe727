"""The command line from outside: exit codes, JSON, one-line errors, odd names, bad input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asha_ray.vae.model_dir import FILES
from tests import media

SERIAL = ("--executor", "serial")
RENDER_KEYS = {
    "output", "render_id", "frames", "fps", "duration_s", "chunks", "reused_chunks", "wall_s"
}  # fmt: skip
Cli = Callable[..., Any]


def document(answer: Any) -> dict[str, Any]:
    """Stdout is exactly one JSON document."""
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


def assert_error(answer: Any, code: int, *parts: str, max_lines: int = 2) -> None:
    """One or two lines on stderr that name the object, and no traceback."""
    lines = [line for line in answer.err.splitlines() if line]
    said = next(i for i, line in enumerate(lines) if line.startswith("asha-ray: "))
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(lines) - said <= max_lines, answer.err
    for part in parts:
        assert part in "\n".join(lines[said:])


class TestJson:
    def test_render(self, cli: Cli, track: Path, model: Path, tmp_path: Path) -> None:
        out = tmp_path / "v.mp4"

        found = document(cli("render", track, "--model", model, "--out", out, *SERIAL, "--json"))

        assert found.keys() >= RENDER_KEYS
        for name in ("frames", "chunks", "reused_chunks"):
            assert isinstance(found[name], int)
        assert found["output"] == str(out)
        assert found["fps"] == "60"
        assert found["duration_s"] == pytest.approx(found["frames"] / 60)

    def test_analyze_path_and_inspect(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        features, latents = tmp_path / "f.npz", tmp_path / "z.npy"

        analyzed = document(cli("analyze", track, "--out", features, *SERIAL, "--json"))
        path = document(cli("path", features, "--model", model, "--out", latents, "--json"))

        assert analyzed["frames"] == path["frames"] == len(np.load(latents))
        assert path["latent"] == 4
        with np.load(features) as file:
            assert file["onset_info"].shape == (analyzed["frames"], 3)

    def test_sample(self, cli: Cli, model: Path, tmp_path: Path) -> None:
        found = document(
            cli("sample", "--model", model, "--out", tmp_path / "s", "--count", 3, "--json")
        )

        assert found["count"] == 3
        assert Path(found["sheet"]).is_file()
        assert len(list((tmp_path / "s").glob("0*.png"))) == 3

    def test_train(self, cli: Cli, pictures: Path, tmp_path: Path) -> None:
        found = document(
            cli("train", pictures, "--out", tmp_path / "m", "--epochs", 0, "--size", "20x16",
                "--latent", 3, "--encoder-filters", "4,8", "--json")
        )  # fmt: skip

        assert found["images"] == 19
        config = json.loads((tmp_path / "m" / "config.json").read_text())
        assert config["architecture"]["encoder_filters"] == [4, 8]
        assert config["architecture"]["image_size"] == [20, 16]

    def test_doctor(self, cli: Cli) -> None:
        answer = cli("doctor", "--json")

        assert answer.code in (0, 1)
        assert all(finding["value"] for finding in json.loads(answer.out)["findings"])

    def test_a_failure_puts_nothing_on_stdout(self, cli: Cli, tmp_path: Path) -> None:
        answer = cli("analyze", tmp_path / "none.wav", "--out", tmp_path / "f.npz", *SERIAL,
                     "--json")  # fmt: skip

        assert (answer.code, answer.out) == (2, "")


class TestInspect:
    @pytest.fixture(scope="class")
    @staticmethod
    def video(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        import asha_ray

        out = tmp_path_factory.mktemp("inspect") / "v.mp4"
        asha_ray.render(track, model=model, out=out, executor="serial")
        return out

    def test_a_good_video_exits_with_0(self, cli: Cli, video: Path) -> None:
        found = document(cli("inspect", video, "--json"))

        assert found["ok"] is True
        assert found["timestamp_steps"] == {"1": found["frames"] - 1}
        assert found["faststart"] is True
        assert found["colour"]["matrix"] == "bt709"

    def test_people_read_a_few_lines(self, cli: Cli, video: Path) -> None:
        answer = cli("inspect", video, "--no-decode")

        assert answer.code == 0
        assert "as it should be" in answer.out

    def test_a_video_that_is_off_exits_with_1(self, cli: Cli, video: Path, tmp_path: Path) -> None:
        silent = media.silent_video(tmp_path / "silent.mp4")

        answer = cli("inspect", silent, "--json")

        assert answer.code == 1
        assert "there is no sound" in json.loads(answer.out)["problems"]

    @pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "sound"])
    def test_what_is_no_video(self, cli: Cli, kind: str, track: Path, tmp_path: Path) -> None:
        path = tmp_path / "v.mp4"
        if kind == "folder":
            path.mkdir()
        elif kind == "sound":
            path = track
        elif kind != "missing":
            path.write_text("" if kind == "empty" else "words " * 100)

        assert_error(cli("inspect", path), 2, str(path))


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("render", "--no-such-option"),
            ("no-such-command",),
            ("render", "a.wav", "--codec", "h263"),
            ("render", "a.wav", "--crf", "many"),
            ("sample", "--out", "x"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage_exits_with_2(self, cli: Cli, arguments: tuple[str, ...]) -> None:
        answer = cli(*arguments)

        assert answer.code == 2
        assert answer.out == ""
        assert "Traceback" not in answer.err

    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (("--fps", "0"), ("video.fps", "0")),
            (("--fps", "fast"), ("video.fps", "write one like 60 or 30000/1001")),
            (("--size", "101x77"), ("4:2:0", "102x78")),
            (("--crf", "99"), ("video.crf", "51", "99")),
            (("--start", "-1"), ("start", "-1")),
            (("--duration", "0"), ("duration", "0")),
            (("--chunk-seconds", "nan"), ("run.chunk_s",)),
            (("--stem", "cymbals"), ("features.stem", "drums", "cymbals")),
            (("--stems", "hpss", "--stem", "drums"), ("features.stem", "harmonic", "percussive")),
            (("--stem", "piano", "--stems-model", "4stems"), ("features.stem", "vocals", "piano")),
            (("--stem", "drums"), ("4stems", "asha-ray stems --fetch 4stems", "--model-dir")),
            (("--preset", "warp"), ("video.preset", "warp")),
            (("--start", "77"), ("start: 77 s lies past the end",)),
            (("--seed", "-1"), ("seed",)),
            (("--keyframe-gap", "inf"), ("motion.keyframe_gap",)),
            (("--min-factor", "nan"), ("motion.min_factor",)),
            (("--decay-rate", "1"), ("features.decay_rate",)),
            (("--out", "ftp://host/v.mp4"), ("ftp://", "s3://")),
        ],
        ids=" ".join,
    )
    def test_wrong_values_are_named(
        self, cli: Cli, options: tuple, parts: tuple, track: Path, model: Path, tmp_path: Path
    ) -> None:
        answer = cli(
            "render", track, "--model", model, "--out", tmp_path / "v.mp4", *SERIAL, *options
        )

        assert_error(answer, 2, *parts)
        assert not (tmp_path / "v.mp4").exists()

    def test_all_wrong_values_at_once(self, cli: Cli) -> None:
        answer = cli("render", "a.wav", "--fps", "0", "--crf", "99")

        assert answer.code == 2
        for part in ("model", "output", "video.fps", "video.crf"):
            assert part in answer.err

    def test_help_and_version(self, cli: Cli) -> None:
        import asha_ray

        assert cli("--version").out == f"asha-ray {asha_ray.__version__}\n"
        assert "render" in cli("--help").out

    def test_debug_shows_where(self, cli: Cli, tmp_path: Path) -> None:
        from asha_ray.errors import AshaError

        with pytest.raises(AshaError):
            cli("--debug", "inspect", tmp_path / "none.mp4")

    def test_a_spec_file_and_options_over_it(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        spec = tmp_path / "r.yaml"
        spec.write_text(
            f"version: 1\nkind: render\naudio: {track}\nmodel: {model}\n"
            f"output: {tmp_path / 'a.mp4'}\nduration: 0.5\n"
            "video: {fps: 30, crf: 30}\nrun: {executor: serial}\n"
        )

        found = document(cli("render", "--config", spec, "--fps", "24", "--json"))

        assert (found["fps"], found["frames"]) == ("24", 12)
        assert found["output"] == str(tmp_path / "a.mp4")

    @pytest.mark.parametrize(
        "text", ["", "- a", "video: [1", "colour: red", "video: {size: big}", "\x00", "video: 3"],
        ids=repr,
    )  # fmt: skip
    def test_a_wrong_spec_file(self, cli: Cli, text: str, tmp_path: Path) -> None:
        spec = tmp_path / "r.yaml"
        spec.write_text(text)

        answer = cli("render", "--config", spec)

        assert answer.code == 2
        assert "Traceback" not in answer.err
        assert answer.err.startswith("asha-ray: ")


@pytest.mark.parametrize(
    "name",
    ["with spaces", "it's \"quoted\"", "Музыка ночью 音楽", "a:b", "-dash", "100%d", "new\nline",
     "#hash?x=1&y", "[brackets]*"],
    ids=repr,
)  # fmt: skip
def test_any_file_name_works(
    name: str, cli: Cli, track: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    sound = folder / f"{name}.wav"
    sound.write_bytes(track.read_bytes())
    own_model = folder / f"{name} model"
    own_model.symlink_to(model)
    out = folder / f"{name}.mp4"

    found = document(
        cli("render", "--model", own_model, "--out", out, "--duration", 0.3, *SERIAL, "--json",
            "--", sound)
    )  # fmt: skip

    assert found["frames"] == 18
    assert document(cli("inspect", "--json", "--", out))["ok"] is True


class TestBadInput:
    def render(self, cli: Cli, sound: Path, model: Path, out: Path, *more: Any) -> Any:
        return cli("render", sound, "--model", model, "--out", out, *SERIAL, *more)

    @pytest.mark.parametrize(
        ("kind", "part"),
        [
            ("empty", "the file is empty"),
            ("text", "it cannot be decoded"),
            ("missing", "there is no such file"),
            ("folder", "it is a folder"),
            ("no audio stream", "it cannot be decoded"),
            ("no samples", "no samples"),
            ("playlist", "it cannot be decoded"),
        ],
        ids=lambda value: value,
    )
    @pytest.mark.parametrize("command", ["render", "analyze"])
    def test_what_is_no_sound(
        self, cli: Cli, command: str, kind: str, part: str, model: Path, tmp_path: Path
    ) -> None:
        sound, out = tmp_path / "track.wav", tmp_path / "out" / "v"
        if kind == "empty":
            sound.touch()
        elif kind == "text":
            sound.write_text("Dear diary, this is no music. " * 100)
        elif kind == "folder":
            sound.mkdir()
        elif kind == "no audio stream":
            sound = media.silent_video(tmp_path / "track.mp4")
        elif kind == "no samples":
            soundfile.write(sound, np.zeros((0, 2), np.float32), 44100)
        elif kind == "playlist":
            sound.write_text("ffconcat version 1.0\nfile /etc/hostname\n")

        options = ("--model", model) if command == "render" else ()
        answer = cli(command, sound, *options, "--out", out, *SERIAL)

        assert_error(answer, 2, str(sound), part)
        assert not out.exists()

    def test_a_truncated_file_gives_what_decodes(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        content = track.read_bytes()
        (tmp_path / "t.wav").write_bytes(content[: len(content) * 2 // 5])

        answer = self.render(cli, tmp_path / "t.wav", model, tmp_path / "v.mp4", "--json")

        assert document(answer)["duration_s"] == pytest.approx(1.0, abs=0.05)
        assert cli("inspect", tmp_path / "v.mp4").code == 0

    def test_a_truncated_mp3_gives_what_decodes(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        whole = media.convert(track, tmp_path / "whole.mp3")
        content = whole.read_bytes()
        (tmp_path / "t.mp3").write_bytes(content[: len(content) // 2])

        answer = self.render(cli, tmp_path / "t.mp3", model, tmp_path / "v.mp4", "--json")

        assert 0.9 < document(answer)["duration_s"] < 1.6
        assert cli("inspect", tmp_path / "v.mp4").code == 0

    def test_a_fifth_of_a_second(self, cli: Cli, model: Path, tmp_path: Path) -> None:
        sound = media.write_sound(tmp_path / "s.wav", media.tone(0.2))

        found = document(self.render(cli, sound, model, tmp_path / "v.mp4", "--json"))

        assert found["frames"] == 12
        assert cli("inspect", tmp_path / "v.mp4").code == 0

    def test_silence_renders_calmly(
        self, cli: Cli, model: Path, tmp_path: Path, decoded: Callable
    ) -> None:
        sound = media.write_sound(tmp_path / "s.wav", np.zeros(2 * 22050, np.float32), 22050)

        answer = self.render(cli, sound, model, tmp_path / "v.mp4", "--crf", 0)

        assert answer.code == 0
        assert "no beats were found" in answer.err
        frames = decoded(tmp_path / "v.mp4").astype(int)
        steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
        assert steps.max() < 4 * max(np.median(steps), 0.5), "a leap where nothing sounds"
        assert cli("inspect", tmp_path / "v.mp4").code == 0

    def test_damaged_samples_count_as_silence_and_are_told(
        self, cli: Cli, model: Path, tmp_path: Path
    ) -> None:
        samples = media.music(1.0, 22050)
        samples[100:200], samples[300] = np.nan, np.inf
        soundfile.write(tmp_path / "s.wav", samples, 22050, subtype="FLOAT")

        answer = self.render(cli, tmp_path / "s.wav", model, tmp_path / "v.mp4")

        assert answer.code == 0
        assert "101 damaged samples" in answer.err
        assert cli("inspect", tmp_path / "v.mp4").code == 0

    @pytest.mark.parametrize("command", ["render", "analyze", "path", "sample", "train"])
    def test_an_output_that_cannot_be_written(
        self, cli: Cli, command: str, track: Path, model: Path, pictures: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("x")
        out = tmp_path / "file" / "out"
        np.savez(tmp_path / "f.npz")
        arguments = {
            "render": (track, "--model", model, *SERIAL),
            "analyze": (track, *SERIAL),
            "path": (tmp_path / "f.npz", "--model", model),
            "sample": ("--model", model),
            "train": (pictures, "--epochs", 0, "--size", 16),
        }[command]

        assert_error(cli(command, *arguments, "--out", out), 2, str(out), "a part of the path")

    def test_a_folder_in_place_of_the_output(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        assert_error(self.render(cli, track, model, tmp_path), 2, "it is a folder")

    @pytest.mark.parametrize("part", FILES)
    def test_a_model_with_a_part_missing(
        self, cli: Cli, part: str, track: Path, model: Path, tmp_path: Path
    ) -> None:
        import shutil

        broken = shutil.copytree(model, tmp_path / "m")
        (broken / part).unlink()

        answer = self.render(cli, track, broken, tmp_path / "v.mp4")

        assert_error(answer, 2, str(broken), f"{part} is missing")

    def test_a_model_of_a_newer_version(
        self, cli: Cli, track: Path, model: Path, tmp_path: Path
    ) -> None:
        import shutil

        newer = shutil.copytree(model, tmp_path / "m")
        config = json.loads((newer / "config.json").read_text())
        (newer / "config.json").write_text(json.dumps({**config, "version": 2}))

        answer = self.render(cli, track, newer, tmp_path / "v.mp4")

        assert_error(answer, 2, "version 2 is newer than 1", "update asha-ray")

    @pytest.mark.parametrize("kind", ["missing", "file", "empty folder"])
    def test_what_is_no_model(self, cli: Cli, kind: str, track: Path, tmp_path: Path) -> None:
        path = tmp_path / "m"
        if kind == "file":
            path.write_text("x")
        elif kind == "empty folder":
            path.mkdir()

        answer = self.render(cli, track, path, tmp_path / "v.mp4")

        assert_error(answer, 2, str(path), "give a folder that `asha-ray train` wrote")

    @pytest.mark.parametrize("content", ["text", "wrong shape"])
    def test_keyframes_that_do_not_fit(
        self, cli: Cli, content: str, track: Path, model: Path, tmp_path: Path
    ) -> None:
        keyframes = tmp_path / "k.npy"
        if content == "text":
            keyframes.write_text("x")
        else:
            np.save(keyframes, np.zeros((3, 5), np.float32))

        answer = self.render(cli, track, model, tmp_path / "v.mp4", "--keyframes", keyframes)

        assert_error(answer, 2, str(keyframes))

    @pytest.mark.parametrize("content", ["text", "no features", "empty"])
    def test_a_features_file_that_is_none(
        self, cli: Cli, content: str, model: Path, tmp_path: Path
    ) -> None:
        features = tmp_path / "f.npz"
        if content == "no features":
            np.savez(features, a=np.zeros(3))
        else:
            features.write_text("x" if content == "text" else "")

        answer = cli("path", features, "--model", model, "--out", tmp_path / "z.npy")

        assert_error(answer, 2, str(features), "no features file")

    @pytest.mark.usefixtures("local_ray")
    @pytest.mark.timeout(120)
    def test_errors_of_workers_are_as_short(self, cli: Cli, model: Path, tmp_path: Path) -> None:
        (tmp_path / "t.wav").write_text("no sound " * 50)

        answer = cli("render", tmp_path / "t.wav", "--model", model, "--out", tmp_path / "v.mp4")

        assert_error(answer, 2, str(tmp_path / "t.wav"), "it cannot be decoded")
        assert not (tmp_path / "v.mp4").exists()


def test_the_module_runs_as_a_program(track: Path, tmp_path: Path) -> None:
    """Once in a process of its own: what is on stdout is JSON, whatever libraries print."""
    command = [
        *(sys.executable, "-m", "asha_ray", "analyze", str(track)),
        *("--out", str(tmp_path / "f.npz"), *SERIAL, "--json"),
    ]

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, cwd=Path(__file__).parents[2],
        env={**os.environ, "COLUMNS": "80"}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] > 100
    assert "\x1b" not in done.stderr, "progress is quiet where no terminal is"
