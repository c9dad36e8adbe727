"""What only a CUDA device can show."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asha_ray.farm.rendering.survey import survey
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.generator import VaeGenerator, numerics_for, pick_device
from asha_ray.vae.model_dir import ModelFiles, read_model, write_model
from asha_ray.vae.numerics import device_kind, numerics_of
from asha_ray.values import Chunk
from asha_ray.video.codecs import NVENC
from asha_ray.video.colour import rgb_to_yuv420
from asha_ray.video.decoders import Decoders
from asha_ray.video.frames import render_frames
from asha_ray.video.resize import fitted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

LATENT = 16
MIN_PSNR_DB = 45


@pytest.fixture(scope="module", params=["seed", "studio"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model whose pictures use the whole range."""
    vae = build(architecture_of(request.param, (160, 96), LATENT), 3)
    gain = {"seed": 1.8, "studio": 1.3}[request.param]
    with torch.no_grad():
        for layer in vae.decoder.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                layer.weight.mul_(gain)
    folder: Path = tmp_path_factory.mktemp("model")
    write_model(folder, vae, np.zeros((1, LATENT), np.float32), {})
    return read_model(folder)


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, (32, LATENT)).astype(np.float32)


def psnr_db(first: torch.Tensor, second: torch.Tensor) -> float:
    error = float((first.cpu() - second.cpu()).square().mean())
    return float(-10 * np.log10(max(error, 1e-12)))


def test_cuda_is_picked() -> None:
    assert pick_device() == "cuda"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_pictures_equal_those_of_the_cpu(
    files: ModelFiles, latents: np.ndarray, dtype: str
) -> None:
    on_cpu = VaeGenerator(files, numerics_for("cpu", 0)).decode(latents)

    on_cuda = VaeGenerator(files, replace(numerics_for("cuda", 0), dtype=dtype)).decode(latents)

    assert on_cuda.is_cuda
    assert float(on_cpu.std()) > 0.02, "the pictures are too flat to tell anything"
    assert psnr_db(on_cuda, on_cpu) >= MIN_PSNR_DB


def test_the_same_latents_give_the_same_pictures(files: ModelFiles, latents: np.ndarray) -> None:
    generator = VaeGenerator(files, numerics_for("cuda", 0))

    assert torch.equal(generator.decode(latents), generator.decode(latents))


def test_encoding_works_beside_a_decoder_on_the_gpu(files: ModelFiles) -> None:
    images = np.random.default_rng(0).random((3, 96, 160, 3), dtype=np.float32)

    on_cuda = VaeGenerator(files, numerics_for("cuda", 0)).encode(images)

    on_cpu = VaeGenerator(files, numerics_for("cpu", 0)).encode(images)
    np.testing.assert_allclose(on_cuda, on_cpu, atol=1e-3)


def test_video_frames_equal_those_of_the_cpu(files: ModelFiles, latents: np.ndarray) -> None:
    pictures = VaeGenerator(files, numerics_for("cuda", 0)).decode(latents)

    frames = rgb_to_yuv420(fitted(pictures, (128, 128), "crop")).cpu().numpy()

    expected = rgb_to_yuv420(fitted(pictures.cpu(), (128, 128), "crop")).numpy()
    assert np.abs(frames.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("num_decoders", [1, 2, 4])
def test_decoders_on_streams_of_their_own_give_the_same_bytes(
    files: ModelFiles, latents: np.ndarray, num_decoders: int
) -> None:
    """A copy that is not waited for, or a buffer that is used again too soon, shows here."""
    generator = VaeGenerator(files, numerics_of(device_kind("cuda")))
    torch.cuda.synchronize()
    chunk = Chunk(0, 0, 32 * 8)
    many = np.concatenate([latents + index for index in range(8)])
    settings = {"batch_size": 8, "size": (128, 72), "fit": "crop"}
    expected = list(render_frames(generator, many, chunk, **settings))

    with Decoders(num_decoders, device="cuda") as decoders:
        batches = render_frames(generator, many, chunk, decoders=decoders, **settings)
        kept = list(batches)  # all of them, so that reuse would be seen

    for found, wanted in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_survey_of_this_gpu_agrees_with_its_encoder() -> None:
    found = survey(codec="auto")

    assert found.kind.startswith("cuda-sm")
    name = torch.cuda.get_device_name()
    if any(part in name for part in ("A100", "H100", "H200")):
        assert set(found.failures) == set(NVENC), "these have no NVENC"


def test_one_training_step_equals_the_cpus(files: ModelFiles) -> None:
    from asha_ray.vae.generator import load_vae
    from asha_ray.vae.training import train_step

    images = torch.rand(4, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, LATENT, generator=torch.Generator().manual_seed(1))
    losses = []
    for device in ("cpu", "cuda"):
        vae = copy.deepcopy(load_vae(files)).requires_grad_().to(device)
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
        for _ in range(2):
            loss = train_step(
                vae, optimizer, images.to(device), noise.to(device), kl_weight=1.0
            ).total
        losses.append(float(loss))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
