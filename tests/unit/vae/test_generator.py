"""A model directory as a generator of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from asha_ray.errors import ModelError
from asha_ray.farm.models import Model, load_model
from asha_ray.vae.architecture import Vae
from asha_ray.vae.generator import (
    VaeGenerator,
    encode_images,
    numerics_for,
    pick_device,
)
from asha_ray.vae.model_dir import read_model

NUMERICS = numerics_for("cpu", 0)


@pytest.fixture
def generator(model_folder: Path) -> VaeGenerator:
    return VaeGenerator(read_model(model_folder), NUMERICS)


@pytest.fixture
def model(generator: VaeGenerator) -> Model:
    return Model(generator)


def latents_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)


def test_decode_is_the_vaes_decoder(generator: VaeGenerator, tiny_vae: Vae) -> None:
    latents = latents_of(5)

    pictures = generator.decode(latents)

    with torch.inference_mode():
        expected = tiny_vae.decoder(torch.from_numpy(latents))
    assert pictures.shape == (5, 3, 16, 24)
    assert pictures.dtype == torch.float32
    torch.testing.assert_close(pictures, expected, atol=1e-5, rtol=0)
    assert (generator.latent_dim, generator.image_size) == (4, (24, 16))


def test_decode_gives_the_same_every_time(generator: VaeGenerator) -> None:
    assert torch.equal(generator.decode(latents_of(4)), generator.decode(latents_of(4)))


def test_bfloat16_is_close_to_float32(model_folder: Path, generator: VaeGenerator) -> None:
    from dataclasses import replace

    half = VaeGenerator(read_model(model_folder), replace(NUMERICS, dtype="bfloat16"))
    latents = latents_of(4)

    error = float((half.decode(latents) - generator.decode(latents)).square().mean())

    assert -10 * np.log10(error) >= 45


def test_encode_gives_the_mean(generator: VaeGenerator, tiny_vae: Vae) -> None:
    images = np.random.default_rng(0).random((20, 16, 24, 3), dtype=np.float32)

    latents = generator.encode(images)

    with torch.inference_mode():
        expected = tiny_vae.encoder(torch.from_numpy(images).permute(0, 3, 1, 2))[0]
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, expected.numpy(), atol=1e-5)


class TestKeyframes:
    IMAGES = np.random.default_rng(5).integers(0, 256, (20, 16, 24, 3), dtype=np.uint8)

    def test_are_means_in_file_order(self, tiny_vae: Vae) -> None:
        together = encode_images(tiny_vae, self.IMAGES, "cpu")

        alone = [encode_images(tiny_vae, self.IMAGES[i : i + 1], "cpu") for i in range(20)]
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)

    def test_sampled_ones_lie_around_the_mean_as_far_as_the_variance_says(
        self, tiny_vae: Vae
    ) -> None:
        from asha_ray.vae.training import to_tensor

        mean = encode_images(tiny_vae, self.IMAGES, "cpu")
        drawn = encode_images(tiny_vae, self.IMAGES, "cpu", np.random.default_rng(1))
        with torch.inference_mode():
            log_var = tiny_vae.encoder(to_tensor(self.IMAGES, "cpu"))[1].numpy()

        noise = (drawn - mean) / np.exp(log_var / 2)

        assert noise.std() == pytest.approx(1, abs=0.3)
        assert drawn.dtype == np.float32
        np.testing.assert_array_equal(
            drawn, encode_images(tiny_vae, self.IMAGES, "cpu", np.random.default_rng(1))
        )
        assert not np.array_equal(
            drawn, encode_images(tiny_vae, self.IMAGES, "cpu", np.random.default_rng(2))
        )

    def test_no_images_give_no_keyframes(self, tiny_vae: Vae) -> None:
        assert encode_images(tiny_vae, self.IMAGES[:0], "cpu").shape == (0, 4)

    def test_a_finished_model_draws_each_keyframe_anew(self, tiny_vae: Vae, tmp_path: Path) -> None:
        """The same picture 40 times: sampled keyframes must all differ, also across batches."""
        from asha_ray.farm.training.dataset import ImageShards
        from asha_ray.farm.training.train_worker import finish_model
        from asha_ray.spec import TrainSpec

        spec = TrainSpec.model_validate(
            {"images": "i", "output": "o", "size": "24x16", "keyframes_from": "sample"}
        )
        images = ImageShards([np.repeat(self.IMAGES[:1], 40, axis=0)])

        finish_model(tmp_path, tiny_vae, images, spec, [], torch.device("cpu"))

        keyframes = read_model(tmp_path).keyframes
        assert len(np.unique(keyframes.round(5), axis=0)) == 40


class TestModel:
    def test_numpy_in_and_out(self, model: Model) -> None:
        pictures = model.decode(latents_of(11))

        assert pictures.shape == (11, 16, 24, 3)
        assert pictures.dtype == np.uint8
        assert model.encode(pictures / 255).shape == (11, 4)
        assert model.keyframes.shape == (6, 4)

    def test_no_latents_give_no_pictures(self, model: Model) -> None:
        assert model.decode(np.zeros((0, 4))).shape == (0, 16, 24, 3)

    def test_no_pictures_give_no_latents(self, model: Model) -> None:
        assert model.encode(np.zeros((0, 16, 24, 3))).shape == (0, 4)

    @pytest.mark.parametrize(
        "latents",
        [np.zeros(4), np.zeros((2, 5)), np.full((1, 4), np.nan), np.full((1, 4), np.inf)],
        ids=["flat", "too wide", "nan", "inf"],
    )
    def test_wrong_latents_are_refused(self, model: Model, latents: np.ndarray) -> None:
        with pytest.raises(ModelError, match=r"finite values of shape \[n, 4\]"):
            model.decode(latents)

    @pytest.mark.parametrize("shape", [(16, 24, 3), (1, 24, 16, 3), (1, 3, 16, 24)], ids=str)
    def test_wrong_pictures_are_refused(self, model: Model, shape: tuple[int, ...]) -> None:
        with pytest.raises(ModelError, match=r"the model takes \[n, 16, 24, 3\]"):
            model.encode(np.zeros(shape))

    def test_loads_from_a_path(self, model_folder: Path) -> None:
        assert load_model(model_folder).latent_dim == 4
        assert load_model(str(model_folder)).image_size == (24, 16)

    @pytest.mark.parametrize("kind", ["nothing", "file"])
    def test_where_no_model_is(self, tmp_path: Path, kind: str) -> None:
        if kind == "file":
            (tmp_path / kind).write_text("no model")

        with pytest.raises(ModelError, match="give a folder that `asha-ray train` wrote"):
            load_model(tmp_path / kind)


def test_pick_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def available(cuda: bool, mps: bool) -> str:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        return pick_device()

    assert available(cuda=True, mps=False) == "cuda"
    assert available(cuda=False, mps=True) == "mps"
    assert available(cuda=False, mps=False) == "cpu"
    assert pick_device("cpu") == "cpu"


def test_numerics_come_from_the_table() -> None:
    numerics = numerics_for("cpu", 3)

    assert (numerics.device, numerics.threads, numerics.dtype) == ("cpu", 3, "float32")
    assert numerics.torch_version == torch.__version__
