"""The inference form of a decoder: the same pictures, and safe to share between threads."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from asha_ray.vae import runner
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.numerics import DTYPES, TABLE, describe, device_kind, numerics_of
from asha_ray.vae.runner import inference_form, to_pixels
from asha_ray.values import Numerics

LATENT = 6
KIND = device_kind("cpu")
EXACT = replace(numerics_of("cpu"), kind=KIND)
SIZES = [(32, 32), (97, 51), (3, 2)]


def decoder_of(preset: str, size: tuple[int, int]) -> nn.Module:
    """A decoder whose pictures are not flat."""
    vae = build(architecture_of(preset, size, LATENT, (8, 16), (16, 8)), 5).eval()
    with torch.no_grad():
        for name, weight in vae.decoder.named_parameters():
            weight.mul_(1.5) if name.endswith("weight") else weight.normal_(std=0.1)
    return vae.decoder


def latents_of(count: int) -> torch.Tensor:
    return torch.randn(count, LATENT, generator=torch.Generator().manual_seed(count))


def logits_of(decoder: nn.Module, numerics: Numerics, latents: torch.Tensor) -> torch.Tensor:
    run = inference_form(copy.deepcopy(decoder), numerics)
    with torch.inference_mode():
        return run(latents).float()


@pytest.mark.parametrize("preset", ["seed", "studio"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_the_rewritten_decoder_is_the_decoder(preset, size, channels_last, fused, monkeypatch):
    """A kernel flipped the wrong way or a shifted block shows as a quite different picture."""
    if not fused:
        monkeypatch.setattr(runner, "_has_fused_primitives", lambda: False)
    decoder, latents = decoder_of(preset, size), latents_of(4)
    with torch.inference_mode():
        expected = decoder.logits(latents)
    found = logits_of(decoder, replace(EXACT, channels_last=channels_last), latents)
    assert float(expected.std()) > 0.01, "the pictures are too flat to tell anything"
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_stays_close(dtype):
    decoder, latents = decoder_of("seed", (32, 32)), latents_of(4)
    exact = logits_of(decoder, EXACT, latents).sigmoid()
    reduced = logits_of(decoder, replace(EXACT, dtype=dtype), latents).sigmoid()
    assert float((exact - reduced).square().mean()) < 10**-4.5


def test_slow_motion_moves_in_bfloat16_too():
    """Latents rounded to bfloat16 stand still for many frames, and then all jump at once."""
    decoder, start = decoder_of("seed", (32, 32)), latents_of(1)
    way = start + torch.linspace(0, 0.01, 50)[:, None] * latents_of(2)[1]
    pictures = logits_of(decoder, replace(EXACT, dtype="bfloat16"), way)
    assert len(torch.unique(pictures.flatten(1), dim=0)) >= 45


def test_a_batch_may_have_another_size_than_the_first():
    """Weights are laid out for the batch of the numerics; samples and tools decode other ones."""
    decoder = decoder_of("seed", (32, 32))
    run = inference_form(copy.deepcopy(decoder), EXACT)
    for count in (1, 4, 7):
        with torch.inference_mode():
            torch.testing.assert_close(
                run(latents_of(count)), decoder.logits(latents_of(count)), atol=2e-5, rtol=1e-5
            )


def test_threads_may_share_it():
    run = inference_form(decoder_of("seed", (32, 32)), EXACT)
    batches = [latents_of(4) + index for index in range(24)]

    def decode(latents: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return run(latents)

    alone = [decode(latents) for latents in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode, batches))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_blocks_become_pixels_as_pixel_shuffle_does(dtype, layout):
    blocks = torch.randn(2, 12, 5, 7).to(dtype).contiguous(memory_format=layout)
    assert torch.equal(to_pixels(blocks), nn.functional.pixel_shuffle(blocks, 2))


class TestTable:
    @pytest.mark.parametrize("kind", TABLE)
    def test_every_row_says_what_it_is(self, kind):
        numerics = numerics_of(kind)
        assert numerics.kind == kind
        assert numerics.device == kind.partition("-")[0]
        assert numerics.dtype in DTYPES
        assert kind in describe(numerics)

    @pytest.mark.parametrize(
        ("kind", "row"), [("cuda-sm120", "cuda"), ("cpu-sve", "cpu"), ("mps-m9", "mps")]
    )
    def test_an_unlisted_kind_has_its_devices_row(self, kind, row):
        assert replace(numerics_of(kind), kind=row) == numerics_of(row)

    def test_the_users_rows_come_first(self):
        row = replace(TABLE["cpu"], batch_size=3)
        assert numerics_of("cpu-avx2", {"cpu-avx2": row}).batch_size == 3
        assert numerics_of("cpu-avx512", {"cpu-avx2": row}).batch_size != 3

    def test_on_a_cpu_a_decoder_has_one_thread(self):
        """More would make frames depend on the machine's cores, and wait for one another."""
        assert all(row.threads == 1 for kind, row in TABLE.items() if kind.startswith("cpu"))

    def test_this_machine_has_a_kind(self):
        assert KIND in TABLE
