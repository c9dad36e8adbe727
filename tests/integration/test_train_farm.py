"""Training with Ray Train: what it leaves, how it goes on, and that workers change nothing."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import asha_ray
from asha_ray.errors import ImageError, ModelError, ResourceError, SpecError, StorageError
from asha_ray.farm.training.train import train as train_spec
from asha_ray.spec import TRAIN_OPTIONS, TrainSpec, build, with_options

EPOCHS = 12
SMALL: dict[str, Any] = {
    "size": 24,
    "latent": 4,
    "batch_size": 16,
    "encoder_filters": (4, 8),
    "decoder_filters": (8, 4),
    "learning_rate": 3e-3,
}


def spec_of(images: Path, out: Path, **options: Any) -> TrainSpec:
    given = {"images": images, "out": out, **SMALL, **options}
    return build(TrainSpec, with_options({}, given, TRAIN_OPTIONS))


def metrics_of(model: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(
    first: Path, second: Path, tolerance: float = 1e-5, epochs: int = EPOCHS
) -> None:
    """Of so many epochs of the first, and the second's: it may have gone on from there."""
    rows, others = metrics_of(first), metrics_of(second)[:epochs]
    assert len(rows) == epochs
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in others]
    for name in ("loss", "reconstruction", "kl"):
        np.testing.assert_allclose(
            [row[name] for row in rows], [row[name] for row in others], rtol=tolerance
        )


@pytest.fixture(scope="module")
def undisturbed(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[Path, Any]:
    """Twelve epochs in one go, with two files among the pictures that are none."""
    folder = tmp_path_factory.mktemp("undisturbed")
    images = shutil.copytree(pictures, folder / "images")
    (images / "07-broken.png").write_bytes((images / "07.png").read_bytes()[:60])
    (images / "text.jpg").write_text("no picture")
    out = folder / "model"
    notes: list[str] = []

    class Ear(asha_ray.progress.NullProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    result = asha_ray.train(images, out=out, progress=Ear(), epochs=EPOCHS, **SMALL)
    return out, (result, notes)


class TestWhatIsLeft:
    @pytest.mark.timeout(180)
    def test_a_model_directory(self, undisturbed: tuple[Path, Any], pictures: Path) -> None:
        out, (result, _) = undisturbed

        names = {path.name for path in out.iterdir()}
        assert names == {
            "config.json", "model.safetensors", "keyframes.npy", "samples", "metrics.jsonl"
        }  # fmt: skip
        assert (result.images, result.skipped, result.epochs) == (19, 2, EPOCHS)
        assert result.training == json.loads((out / "config.json").read_text())["training"]
        model = asha_ray.load_model(out)
        assert (model.latent_dim, model.image_size) == (4, (24, 24))
        originals = np.stack(
            [np.asarray(Image.open(path)) for path in sorted(pictures.glob("*.png"))]
        )
        np.testing.assert_allclose(model.encode(originals / 255), model.keyframes, atol=1e-4)

    def test_it_has_learned(self, undisturbed: tuple[Path, Any]) -> None:
        losses = [row["loss"] for row in metrics_of(undisturbed[0])]

        assert len(losses) == EPOCHS
        assert losses[-1] < losses[0]

    def test_a_sheet_an_epoch_and_a_strip_of_progress(self, undisturbed: tuple[Path, Any]) -> None:
        samples = undisturbed[0] / "samples"

        assert sorted(path.name for path in samples.iterdir()) == [
            *(f"epoch-{number:04d}.png" for number in range(1, EPOCHS + 1)),
            "progress.png",
        ]
        with Image.open(samples / "progress.png") as strip:
            assert strip.height > 5 * 24

    def test_unreadable_images_are_named_and_counted(self, undisturbed: tuple[Path, Any]) -> None:
        [note] = undisturbed[1][1]

        assert note.startswith("2 of 21 images cannot be read and are skipped")
        assert "07-broken.png: it is damaged" in note
        assert "text.jpg: it is no picture of a known format" in note


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("asha_ray.farm.training.train.ray_cluster", refuse)


@pytest.mark.usefixtures("no_ray")
class TestNothingToGoOnWith:
    """Known before Ray is started."""

    def test_a_run_that_is_done_is_only_told(
        self, undisturbed: tuple[Path, Any], pictures: Path
    ) -> None:
        out, (result, _) = undisturbed
        before = {path: path.stat().st_mtime_ns for path in out.iterdir()}

        again = asha_ray.train(pictures, out=out, epochs=EPOCHS, resume=True, **SMALL)

        assert again == result
        assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before

    def test_a_run_of_more_epochs(self, undisturbed: tuple[Path, Any], pictures: Path) -> None:
        with pytest.raises(SpecError, match=r"went past 3 epochs already; give more --epochs"):
            asha_ray.train(pictures, out=undisturbed[0], epochs=3, resume=True, **SMALL)

    def test_a_run_of_other_settings(self, undisturbed: tuple[Path, Any], pictures: Path) -> None:
        other = {**SMALL, "latent": 5}
        with pytest.raises(SpecError, match="had other settings"):
            asha_ray.train(pictures, out=undisturbed[0], epochs=13, resume=True, **other)

    def test_a_model_that_lacks_a_file_is_not_done(
        self, undisturbed: tuple[Path, Any], pictures: Path, tmp_path: Path
    ) -> None:
        """The run still has its checkpoint, and Ray is asked to make the model of it again."""
        out, _ = undisturbed
        shutil.copytree(out.parent / ".asha", tmp_path / ".asha")
        model = shutil.copytree(out, tmp_path / out.name)
        (model / "keyframes.npy").unlink()

        with pytest.raises(AssertionError, match="Ray was started"):
            asha_ray.train(pictures, out=model, epochs=EPOCHS, resume=True, **SMALL)

    def test_no_run(self, pictures: Path, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="there is no earlier run"):
            asha_ray.train(pictures, out=tmp_path / "m", resume=True, **SMALL)


@pytest.mark.usefixtures("no_ray")
class TestRefusals:
    """Before Ray is started, all of them."""

    def test_no_epochs_write_an_initialised_model(self, pictures: Path, tmp_path: Path) -> None:
        result = asha_ray.train(pictures, out=tmp_path / "m", epochs=0, **SMALL)

        assert (result.images, result.epochs) == (19, 0)
        model = asha_ray.load_model(tmp_path / "m")
        assert model.keyframes.shape == (19, 4)
        assert {"reconstruction_psnr_db", "mean_image_psnr_db"} <= result.training.keys()

    def test_a_folder_with_none_left(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for name in ("a.png", "b.jpg"):
            (tmp_path / "images" / name).write_text("no picture")

        with pytest.raises(ImageError, match="none of 2 can be read"):
            asha_ray.train(tmp_path / "images", out=tmp_path / "m", epochs=0, **SMALL)

        assert not (tmp_path / "m").exists()

    def test_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="there are no images in it"):
            asha_ray.train(tmp_path, out=tmp_path / "m", **SMALL)

    def test_too_large_for_memory(self, pictures: Path, tmp_path: Path) -> None:
        with pytest.raises(ResourceError, match=r"needs about .* GB, and .* GB of"):
            asha_ray.train(pictures, out=tmp_path / "m", size="1920x1080", batch_size=512)

        assert not (tmp_path / "m").exists()

    def test_an_output_that_cannot_be_written(self, pictures: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")

        with pytest.raises(StorageError, match="a part of the path is a file"):
            asha_ray.train(pictures, out=tmp_path / "file" / "m", **SMALL)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"size": "12y"}, "size: '12y' is no size"),
            ({"epochs": -1}, "epochs: "),
            ({"learning_rate": 0}, "learning_rate: "),
            ({"encoder_filters": "8,x"}, "encoder_filters: "),
            ({"no_such": 1}, "there is no option 'no_such'"),
        ],
        ids=str,
    )
    def test_wrong_settings(
        self, options: dict, message: str, pictures: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(SpecError, match=message):
            asha_ray.train(pictures, out=tmp_path / "m", **{**SMALL, **options})


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("local_ray")
class TestGoingOn:
    def test_a_resumed_run_is_as_if_it_had_never_stopped(
        self, undisturbed: tuple[Path, Any], pictures: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "model"

        asha_ray.train(pictures, out=out, epochs=2, **SMALL)
        assert len(metrics_of(out)) == 2
        result = asha_ray.train(pictures, out=out, epochs=EPOCHS, resume=True, **SMALL)

        assert result.epochs == EPOCHS
        assert_same_curve(out, undisturbed[0])
        keyframes = [np.load(folder / "keyframes.npy") for folder in (out, undisturbed[0])]
        np.testing.assert_allclose(*keyframes, atol=1e-4)
        assert (out / "samples" / "epoch-0001.png").exists()

    def test_two_workers_give_the_curve_of_one_with_the_doubled_batch(
        self, undisturbed: tuple[Path, Any], pictures: Path, tmp_path: Path
    ) -> None:
        """Nineteen pictures in batches of sixteen: the last batch fills no worker."""
        halved = {**SMALL, "batch_size": SMALL["batch_size"] // 2}

        asha_ray.train(pictures, out=tmp_path / "two", workers=2, epochs=3, **halved)

        assert_same_curve(tmp_path / "two", undisturbed[0], 1e-4, epochs=3)

    def test_a_killed_worker_goes_on_from_its_checkpoint(
        self, undisturbed: tuple[Path, Any], pictures: Path, tmp_path: Path,
        descendants: Callable[[str], list[psutil.Process]],
    ) -> None:  # fmt: skip
        disturbed = tmp_path / "disturbed"
        killed: list[int] = []
        ended = threading.Event()

        def kill() -> None:
            deadline = time.monotonic() + 120
            while not ended.wait(0.02) and time.monotonic() < deadline:
                written = disturbed / "metrics.jsonl"
                if not written.exists() or len(metrics_of(disturbed)) < 2:
                    continue
                for process in descendants("ray::RayTrainWorker"):
                    killed.append(len(metrics_of(disturbed)))
                    process.kill()
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            train_spec(spec_of(pictures, disturbed, epochs=EPOCHS), checkpoint_s=0)
        finally:
            ended.set()
            killer.join()

        assert killed
        assert killed[0] < EPOCHS, "it was killed too late to mean anything"
        assert_same_curve(disturbed, undisturbed[0])

    def test_a_loss_that_is_no_number_is_an_error(self, pictures: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="use a lower --learning-rate"):
            asha_ray.train(
                pictures, out=tmp_path / "m", epochs=10, **{**SMALL, "learning_rate": 1.0},
                kl_weight=1e6,
            )  # fmt: skip

        assert not (tmp_path / "m" / "config.json").exists()
