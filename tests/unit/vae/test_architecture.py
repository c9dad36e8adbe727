"""The presets: the article's layers to the letter, and any picture size."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from asha_ray.errors import ModelError
from asha_ray.vae.architecture import (
    architecture_of,
    build,
    build_empty,
    from_json,
    to_json,
)

LATENT = 200
ENCODER_CHANNELS = (3, 32, 64, 128, 256)
DECODER_GROUPS = ((256, 4), (128, 4), (64, 3), (32, 3), (16, 3))
ARTICLE = architecture_of("seed", (448, 448), LATENT)

ODD_SIZES = [(101, 77), (8, 8), (1, 1), (7, 640), (64, 48)]
LARGE_SIZES = [(1920, 1080), (3840, 2160)]


def conv_parameters(channels: int, filters: int) -> int:
    return 3 * 3 * channels * filters + filters


def dense_parameters(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def layers_of(module: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def output_shapes(module: nn.Module, kinds: tuple[type[nn.Module], ...], batch: Tensor) -> list:
    shapes: list[tuple[int, ...]] = []
    for layer in layers_of(module, *kinds):
        layer.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape[1:])))
    module(batch)
    return shapes


def article_decoder_channels() -> list[tuple[int, int, int]]:
    """(channels in, channels out, stride) of each transposed convolution."""
    layers, channels = [], 128
    for filters, repeats in DECODER_GROUPS:
        for index in range(repeats):
            layers.append((channels, filters, 2 if index == 0 else 1))
            channels = filters
    return [*layers, (channels, 3, 2)]


class TestArticle:
    def test_encoder_has_the_articles_parameters_layer_by_layer(self) -> None:
        encoder = build_empty(ARTICLE).encoder

        convolutions = layers_of(encoder, nn.Conv2d)

        assert [count(layer) for layer in convolutions] == [
            conv_parameters(*pair) for pair in pairwise(ENCODER_CHANNELS)
        ]
        dense = dense_parameters(28 * 28 * 256, LATENT)
        assert count(encoder.z_mean) == count(encoder.z_log_var) == dense
        assert count(encoder) == 896 + 18_496 + 73_856 + 295_168 + 2 * dense

    def test_decoder_has_the_articles_parameters_layer_by_layer(self) -> None:
        decoder = build_empty(ARTICLE).decoder

        found = layers_of(decoder, nn.ConvTranspose2d)

        expected = article_decoder_channels()
        assert len(found) == 4 + 4 + 3 + 3 + 3 + 1
        assert [count(layer) for layer in found] == [conv_parameters(i, o) for i, o, _ in expected]
        assert [layer.stride[0] for layer in found] == [stride for _, _, stride in expected]
        dense = dense_parameters(LATENT, 7 * 7 * 128)
        assert count(decoder.dense) == dense
        assert count(decoder) == dense + sum(conv_parameters(i, o) for i, o, _ in expected)

    def test_maps_halve_in_the_encoder_and_double_in_the_decoder(self) -> None:
        vae = build_empty(ARTICLE)

        with torch.device("meta"):
            pooled = output_shapes(vae.encoder, (nn.MaxPool2d,), torch.empty(1, 3, 448, 448))
            maps = output_shapes(
                vae.decoder, (nn.Linear, nn.ConvTranspose2d), torch.empty(1, LATENT)
            )

        assert pooled == [(32, 224, 224), (64, 112, 112), (128, 56, 56), (256, 28, 28)]
        sides = [14] * 4 + [28] * 4 + [56] * 3 + [112] * 3 + [224] * 3 + [448]
        channels = [filters for _, filters, _ in article_decoder_channels()]
        assert maps[0] == (7 * 7 * 128,)
        assert maps[1:] == [(c, side, side) for c, side in zip(channels, sides, strict=True)]

    def test_decoder_costs_1_66_billion_multiply_adds_a_frame(self) -> None:
        side, total = 7, LATENT * 7 * 7 * 128
        for channels, filters, stride in article_decoder_channels():
            total += 9 * channels * filters * side * side
            side *= stride  # each input sample is multiplied by each weight, then the map doubles
        assert side == 448
        assert total / 1e9 == pytest.approx(1.66, abs=0.01)

    def test_biases_begin_at_zero_and_weights_are_glorot_uniform(self) -> None:
        encoder = build(architecture_of("seed", (32, 32), 8)).encoder

        for layer in layers_of(encoder, nn.Conv2d):
            bound = (6 / (9 * layer.in_channels + 9 * layer.out_channels)) ** 0.5
            assert float(layer.bias.detach().abs().max()) == 0
            assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound * 1.0001

    def test_forward_is_what_the_article_describes(self) -> None:
        """An independent chain of plain functions with the same weights gives the same."""
        vae = build(architecture_of("seed", (64, 64), 6, (4, 6), (6, 5)), 1)
        state = vae.state_dict()
        images = torch.rand(2, 3, 64, 64)
        noise = torch.randn(2, 6)

        maps = images
        for index in (0, 3):
            name = f"encoder.features.{index}"
            maps = functional.conv2d(
                maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=1
            )
            maps = functional.max_pool2d(torch.relu(maps), 2)
        flat = maps.flatten(1)
        mean = flat @ state["encoder.z_mean.weight"].T + state["encoder.z_mean.bias"]
        log_var = flat @ state["encoder.z_log_var.weight"].T + state["encoder.z_log_var.bias"]
        z = mean + torch.exp(log_var / 2) * noise
        maps = torch.tanh(z @ state["decoder.dense.weight"].T + state["decoder.dense.bias"])
        maps = maps.reshape(2, 128, 8, 8)
        numbers = sorted(
            {int(name.split(".")[2]) for name in state if name.startswith("decoder.layers.")}
        )
        for position, number in enumerate(numbers):
            name = f"decoder.layers.{number}"
            stride = 2 if position in (0, 4, 8) else 1
            maps = functional.conv_transpose2d(
                maps,
                state[f"{name}.weight"],
                state[f"{name}.bias"],
                stride=stride,
                padding=1,
                output_padding=stride - 1,
            )
            if number != numbers[-1]:
                maps = torch.relu(maps)

        output = vae(images, noise)

        torch.testing.assert_close(output.z_mean, mean)
        torch.testing.assert_close(output.z_log_var, log_var)
        torch.testing.assert_close(output.logits, maps)
        torch.testing.assert_close(vae.decoder(z), torch.sigmoid(maps))


@pytest.mark.parametrize("preset", ["seed", "studio"])
class TestAnySize:
    @pytest.mark.parametrize("size", ODD_SIZES, ids=str)
    def test_pictures_come_out_at_the_size_they_went_in(
        self, preset: str, size: tuple[int, int]
    ) -> None:
        width, height = size
        vae = build(architecture_of(preset, size, 5, (8, 16, 16), (16, 8, 8)))
        images = torch.rand(2, 3, height, width)

        output = vae(images, torch.randn(2, 5))
        pictures = vae.decoder(torch.randn(2, 5)).detach()

        assert output.logits.shape == pictures.shape == (2, 3, height, width)
        assert output.z_mean.shape == output.z_log_var.shape == (2, 5)
        assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
        assert torch.isfinite(output.logits).all()

    @pytest.mark.parametrize("size", LARGE_SIZES, ids=str)
    def test_large_pictures_are_pooled_before_the_dense_layers(
        self, preset: str, size: tuple[int, int]
    ) -> None:
        width, height = size
        vae = build_empty(architecture_of(preset, size, LATENT))

        with torch.device("meta"):
            output = vae(torch.empty(1, 3, height, width), torch.empty(1, LATENT))

        assert output.logits.shape == (1, 3, height, width)
        assert max(vae.encoder.pooled) <= 28
        assert count(vae.encoder.z_mean) <= dense_parameters(28 * 28 * 256, LATENT)

    def test_usual_filters_work_at_odd_sizes_too(self, preset: str) -> None:
        vae = build_empty(architecture_of(preset, (101, 77), LATENT))

        with torch.device("meta"):
            output = vae(torch.empty(3, 3, 77, 101), torch.empty(3, LATENT))

        assert output.logits.shape == (3, 3, 77, 101)

    def test_weights_depend_on_the_seed_alone(self, preset: str) -> None:
        architecture = architecture_of(preset, (16, 16), 3, (8,), (8,))
        torch.manual_seed(99)
        before = torch.get_rng_state()

        first, same, other = (build(architecture, seed).state_dict() for seed in (5, 5, 6))

        assert all(torch.equal(first[name], same[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
        assert torch.equal(torch.get_rng_state(), before), "the caller's random state was touched"

    def test_tensors_are_named_encoder_and_decoder(self, preset: str) -> None:
        names = build_empty(architecture_of(preset, (32, 32), 4)).state_dict()

        assert {name.split(".")[0] for name in names} == {"encoder", "decoder"}


class TestJson:
    def test_round_trip(self) -> None:
        architecture = architecture_of("studio", (1920, 1080), 64, (8, 16), (16, 8, 4))

        assert from_json(to_json(architecture)) == architecture

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "gan"}, "no architecture 'gan'; there are seed, studio"),
            ({"image_size": [448]}, "not complete"),
            ({"image_size": [448, 0]}, "0 is no whole number from 1 to 16384"),
            ({"image_size": 448}, "not complete"),
            ({"latent_dim": 1.5}, "1.5 is no whole number"),
            ({"latent_dim": True}, "True is no whole number"),
            ({"latent_dim": 10**9}, "no whole number from 1 to 65536"),
            ({"encoder_filters": []}, "1 to 16 levels, not 0"),
            ({"decoder_filters": [8] * 17}, "1 to 16 levels, not 17"),
            ({"decoder_filters": ["8"]}, "'8' is no whole number"),
            ({"encoder_filters": None}, "not complete"),
        ],
        ids=str,
    )
    def test_wrong_fields_are_refused(self, change: dict, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            from_json({**to_json(ARTICLE), **change})

    @pytest.mark.parametrize("field", list(to_json(ARTICLE)))
    def test_missing_fields_are_refused(self, field: str) -> None:
        data = to_json(ARTICLE)
        del data[field]

        with pytest.raises(ModelError, match=f"not complete.*{field}"):
            from_json(data)

    def test_building_an_unknown_preset_is_refused(self) -> None:
        with pytest.raises((ModelError, KeyError)):
            build(architecture_of("nothing", (8, 8), 2))


def test_studio_begins_as_nearly_an_autoencoder() -> None:
    vae = build(architecture_of("studio", (32, 32), 8))

    _, log_var = vae.encoder(torch.rand(4, 3, 32, 32))

    np.testing.assert_allclose(log_var.detach().numpy(), -3.0, atol=1e-6)
