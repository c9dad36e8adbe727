"""Local files that go to where a cluster sees them: once, whole, and by their content."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from asha_ray.errors import SpecError
from asha_ray.farm.jobs.inputs import Inputs
from asha_ray.farm.training.dataset import list_images
from asha_ray.progress import NullProgress
from asha_ray.spec import MotionSettings, RenderSpec, TrainSpec
from asha_ray.storage.keys import file_digest
from asha_ray.storage.local import LocalStorage

PARTS = ("config.json", "model.safetensors", "keyframes.npy")


@pytest.fixture
def work(tmp_path: Path) -> str:
    return str(tmp_path / "work")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was really sent, in order."""
    names: list[str] = []
    plain = LocalStorage.upload

    def upload(self: LocalStorage, path: Path, uri: str) -> None:
        plain(self, path, uri)
        names.append(path.name)

    monkeypatch.setattr(LocalStorage, "upload", upload)
    return names


def file(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def spec(tmp_path: Path) -> RenderSpec:
    for name in (*PARTS, "samples/progress.png"):
        file(tmp_path / "model" / name, name)
    np.save(tmp_path / "keys.npy", np.zeros(3))
    return RenderSpec(
        audio=str(file(tmp_path / "мой 'track' #1.mp3", "sound")),
        model=str(tmp_path / "model"),
        output="s3://bucket/v.mp4",
        motion=MotionSettings(keyframes=str(tmp_path / "keys.npy")),
    )


def test_all_inputs_lie_below_the_work_root_afterwards(spec: RenderSpec, work: str) -> None:
    placed = Inputs(work, NullProgress()).place(spec)
    audio, model, keyframes = placed.audio, placed.model, placed.motion.keyframes
    assert keyframes is not None
    assert all(uri.startswith(f"{work}/inputs/") for uri in (audio, model, keyframes))
    assert Path(audio).read_text() == "sound"
    assert audio == f"{work}/inputs/{file_digest(Path(audio))}/file.mp3"
    assert sorted(path.name for path in Path(model).iterdir()) == sorted(PARTS)
    assert placed.output == spec.output


def test_the_same_content_goes_once(
    spec: RenderSpec, work: str, sent: list[str], tmp_path: Path
) -> None:
    """An artist submits the same track and model a hundred times."""
    first = Inputs(work, NullProgress()).place(spec)
    assert len(sent) == 5
    copy = file(tmp_path / "elsewhere" / "copy.mp3", "sound")
    again = Inputs(work, NullProgress()).place(spec.model_copy(update={"audio": str(copy)}))
    assert again == first
    assert len(sent) == 5


def test_other_content_is_another_input(spec: RenderSpec, work: str) -> None:
    first = Inputs(work, NullProgress()).place(spec)
    file(Path(spec.model) / "model.safetensors", "trained on")
    second = Inputs(work, NullProgress()).place(spec)
    assert second.model != first.model
    assert second.audio == first.audio
    assert (Path(first.model) / "model.safetensors").read_text() == "model.safetensors"


def test_a_model_is_none_before_its_config_is_there(
    spec: RenderSpec, work: str, sent: list[str]
) -> None:
    Inputs(work, NullProgress()).place(spec)
    assert [name for name in sent if name in PARTS][-1] == "config.json"


def test_what_was_torn_is_sent_again(spec: RenderSpec, work: str) -> None:
    placed = Inputs(work, NullProgress()).place(spec)
    Path(placed.audio).write_text("so")
    Inputs(work, NullProgress()).place(spec)
    assert Path(placed.audio).read_text() == "sound"


def test_what_a_bucket_may_soon_let_go_is_sent_again(
    spec: RenderSpec, work: str, sent: list[str]
) -> None:
    placed = Inputs(work, NullProgress()).place(spec)
    old = time.time() - 8 * 86400
    os.utime(placed.audio, (old, old))
    sent.clear()
    Inputs(work, NullProgress()).place(spec)
    assert sent == [Path(spec.audio).name]


def test_what_lies_in_a_bucket_stays_there(work: str, sent: list[str]) -> None:
    spec = RenderSpec(audio="s3://b/a.wav", model="s3://b/m", output="s3://b/v.mp4")
    assert Inputs(work, NullProgress()).place(spec) == spec
    assert sent == []


def test_images_keep_their_order(tmp_path: Path, work: str) -> None:
    """Keyframes are in file order, so it is a part of what is learned."""
    for name in ("b/2.png", "a-1.png", "a/3.png", "notes.txt"):
        file(tmp_path / "images" / name, name)
    spec = TrainSpec(images=str(tmp_path / "images"), output="s3://b/model")
    placed = Inputs(work, NullProgress()).place(spec)
    assert [Path(uri).read_text() for uri in list_images(placed.images)] == [
        Path(uri).read_text() for uri in list_images(spec.images)
    ]


def test_a_name_that_no_bucket_takes_is_refused(tmp_path: Path, work: str) -> None:
    file(tmp_path / "images" / "a\nb.png", "x")
    spec = TrainSpec(images=str(tmp_path / "images"), output="s3://b/model")
    with pytest.raises(SpecError, match=r"no file of the name 'a\\nb.png'; rename it"):
        Inputs(work, NullProgress()).place(spec)


def test_an_empty_folder_is_refused(spec: RenderSpec, work: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    features = spec.features.model_copy(update={"model_dir": str(tmp_path / "empty")})
    with pytest.raises(SpecError, match="it is empty"):
        Inputs(work, NullProgress()).place(spec.model_copy(update={"features": features}))
