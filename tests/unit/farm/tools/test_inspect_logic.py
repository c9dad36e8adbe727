"""What `inspect` concludes from what it measured."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asha_ray.farm.tools import inspect as inspect_module
from asha_ray.farm.tools.inspect import Inspection, inspect, motion_correlation
from asha_ray.motion.seed import SeedPath
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.model_dir import write_model
from asha_ray.video.probe import Pictures, VideoReport
from tests.media import tone, write_sound

GOOD = VideoReport(
    frames=10,
    fps=Fraction(30),
    size=(32, 32),
    codec="h264",
    video_start_s=Fraction(0),
    video_duration_s=Fraction(1, 3),
    timestamp_steps={Fraction(1): 9},
    audio_codec="aac",
    audio_start_s=Fraction(0),
    audio_duration_s=Fraction(1, 3),
    colour={"matrix": "bt709", "primaries": "bt709", "transfer": "bt709", "range": "limited"},
    faststart=True,
    pictures=Pictures(10, 10, np.arange(9, dtype=np.float32)),
)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"a video")
    return path


def look_at(
    video: Path, monkeypatch: pytest.MonkeyPatch, report: VideoReport = GOOD, record: Any = None
) -> Inspection:
    import json

    monkeypatch.setattr(inspect_module, "probe", lambda *_, **__: report)
    if record is not None:
        Path(f"{video}.json").write_text(json.dumps(record))
    return inspect(str(video))


def record_of(video: Path, **changes: Any) -> dict[str, Any]:
    from asha_ray.storage.keys import file_digest

    return {"sha256": file_digest(video), "frames": 10, **changes}


def test_a_good_video_without_record(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at(video, monkeypatch)

    assert (found.problems, found.remarks) == ((), ())
    assert (found.distinct_share, found.motion_correlation, found.gain_db) == (1, None, None)


def test_a_changed_video_is_a_problem(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look_at(video, monkeypatch, record=record_of(video, sha256="0", frames=11))

    assert found.problems == (
        "its sha256 is not what its record says: it has been changed",
        "its record says 11 frames",
    )


FAULTS = {
    "steps": ({"timestamp_steps": {Fraction(1): 8, Fraction(507, 512): 1}}, "1 timestamp steps"),
    "late picture": ({"video_start_s": Fraction(1, 30)}, "first frame is shown at 0.033333 s"),
    "no sound": ({"audio_codec": None, "audio_start_s": None}, "there is no sound"),
    "late sound": ({"audio_start_s": Fraction(1, 50)}, "the sound starts at 0.020000 s"),
    "short sound": ({"audio_duration_s": Fraction(1, 4)}, "end -0.0833 s apart"),
    "long sound": ({"audio_duration_s": Fraction(1, 2)}, "end +0.1667 s apart"),
    "range": ({"colour": {**GOOD.colour, "range": "code 0"}}, "range code 0"),
    "index": ({"faststart": False}, "no faststart"),
    "torn": ({"pictures": Pictures(9, 9, np.zeros(8, np.float32))}, "9 of 10 frames decode"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_a_problem(fault: str, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = FAULTS[fault]

    found = look_at(video, monkeypatch, replace(GOOD, **change))

    assert len(found.problems) == 1
    assert message in found.problems[0]


def test_sound_may_end_one_frame_apart(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for gap in (Fraction(1, 30), -Fraction(1, 30)):
        report = replace(GOOD, audio_duration_s=Fraction(1, 3) + gap)
        assert look_at(video, monkeypatch, report).problems == ()


@pytest.mark.parametrize(("distinct", "remarked"), [(10, False), (9, False), (8, True), (1, True)])
def test_a_still_picture_is_remarked(
    distinct: int, remarked: bool, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(GOOD, pictures=Pictures(10, distinct, np.zeros(9, np.float32)))

    found = look_at(video, monkeypatch, report)

    assert found.problems == ()
    assert bool([text for text in found.remarks if "stands still" in text]) is remarked


@pytest.mark.parametrize(("psnr", "remarked"), [(20.0, False), (15.0, False), (14.9, True)])
def test_a_weak_model_is_remarked(
    psnr: float, remarked: bool, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"reconstruction_psnr_db": psnr, "mean_image_psnr_db": 10.0}

    found = look_at(video, monkeypatch, record=record_of(video, model={"training": training}))

    assert found.gain_db == pytest.approx(psnr - 10)
    assert bool([text for text in found.remarks if "train it longer" in text]) is remarked


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", '{"model": 3}', '{"model": {"training": {}}}']
)
def test_a_damaged_record_does_no_harm(
    content: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(f"{video}.json").write_text(content)

    assert look_at(video, monkeypatch).gain_db is None


SPEC = {"audio": "/a.wav", "model": "/m", "output": "/v.mp4"}
RECORD = {"spec": SPEC, "work": "/w"}


class TestCorrelation:
    """Frame differences against latent steps of the path that a record names."""

    @pytest.fixture
    def path(self, monkeypatch: pytest.MonkeyPatch) -> SeedPath:
        keyframes = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
        envelope = np.abs(np.sin(np.arange(200) / 9)).astype(np.float32)
        path = SeedPath(keyframes, envelope, Fraction(60))

        class Files:
            pass

        files = Files()
        files.keyframes = keyframes
        monkeypatch.setattr(inspect_module, "load_files", lambda *_, **__: files)
        monkeypatch.setattr(inspect_module, "kept_features", lambda *_: object())
        monkeypatch.setattr(inspect_module, "make_path", lambda *_: path)
        return path

    @staticmethod
    def steps(path: SeedPath, start: int, count: int) -> np.ndarray:
        latents = path.latents(start, start + count + 1)
        return np.linalg.norm(np.diff(latents, axis=0), axis=1).astype(np.float32)

    def test_is_one_where_the_picture_follows_the_path(self, path: SeedPath) -> None:
        difference = 3 * self.steps(path, 0, 199) + 2

        assert motion_correlation(RECORD, difference) == pytest.approx(1, abs=1e-5)

    def test_knows_where_the_render_began(self, path: SeedPath) -> None:
        record = {**RECORD, "spec": {**SPEC, "start": 1.0}}

        assert motion_correlation(record, self.steps(path, 60, 100)) == pytest.approx(1, abs=1e-5)
        assert motion_correlation(record, self.steps(path, 0, 100)) < 0.9

    @pytest.mark.parametrize(
        "difference", [np.zeros(199), np.zeros(2), np.zeros(0)], ids=["still", "short", "none"]
    )
    def test_is_none_where_it_is_not_defined(self, path: SeedPath, difference: np.ndarray) -> None:
        assert motion_correlation(RECORD, difference.astype(np.float32)) is None

    @pytest.mark.parametrize("record", [{}, {"spec": {}}, {"spec": None}, {"spec": 3, "work": 1}])
    def test_is_none_where_the_record_tells_nothing(self, record: dict[str, Any]) -> None:
        assert motion_correlation(record, np.arange(9, dtype=np.float32)) is None

    def test_is_none_where_the_model_is_gone(self, tmp_path: Path) -> None:
        record = {**RECORD, "spec": {**SPEC, "model": str(tmp_path / "gone")}}

        assert motion_correlation(record, np.arange(9, dtype=np.float32)) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"work": "s3://stranger/w"},
            {"spec": {**SPEC, "audio": "s3://stranger/a.wav"}},
            {"spec": {**SPEC, "model": "s3://stranger/m"}},
            {"spec": {**SPEC, "motion": {"keyframes": "s3://stranger/k.npy"}}},
            {"spec": {**SPEC, "features": {"stem": "drums", "model_dir": "s3://stranger/d"}}},
        ],
        ids=repr,
    )
    def test_a_local_record_leads_to_no_bucket(
        self, path: SeedPath, change: dict[str, Any]
    ) -> None:
        """Whoever sends a video would have it fetched with the credentials of who inspects it."""
        record = {**RECORD, **change}

        assert motion_correlation(record, self.steps(path, 0, 199)) is None

    def test_a_record_has_nothing_measured_or_written(self, tmp_path: Path) -> None:
        """A stranger's record would choose a folder here, and a file that keeps it busy."""
        write_sound(tmp_path / "a.wav", tone(1.0))
        vae = build(architecture_of("seed", (24, 16), 4, (4,), (4,)))
        (tmp_path / "m").mkdir()
        write_model(tmp_path / "m", vae, np.zeros((3, 4), np.float32), {})
        spec = {**SPEC, "audio": str(tmp_path / "a.wav"), "model": str(tmp_path / "m")}
        record = {"spec": spec, "work": str(tmp_path / "chosen")}
        before = sorted(tmp_path.rglob("*"))

        assert motion_correlation(record, np.arange(9, dtype=np.float32)) is None
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content",
    [
        "[" * 200_000,
        " " * (2 << 20) + "{}",
        '{"model": {"training": {"reconstruction_psnr_db": 1' + "0" * 400
        + ', "mean_image_psnr_db": 1}}}',
        '{"frames": "' + "x" * 100_000 + '"}',
    ],
    ids=["deep", "large", "a number beyond floats", "long"],
)  # fmt: skip
def test_a_hostile_record_is_none(
    content: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(f"{video}.json").write_text(content)

    found = look_at(video, monkeypatch)

    assert (found.motion_correlation, found.gain_db) == (None, None)
    assert all(len(problem) < 200 for problem in found.problems)
