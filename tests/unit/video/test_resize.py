"""Fitting pictures to a video's size: geometry, and Lanczos like Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from asha_ray.video.resize import fitted

FITS = ["crop", "pad", "stretch"]


def _random(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, height, width, generator=generator)


def _smooth(height, width):
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)[None, :]
    waves = [0.5 + 0.4 * torch.sin(6 * x + 4 * y + c) for c in range(3)]
    return torch.stack(waves)[None]


@pytest.mark.parametrize("fit", FITS)
def test_the_right_size_is_left_alone(fit):
    pictures = _random(8, 12)
    assert torch.equal(fitted(pictures, (12, 8), fit), pictures)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("size", [(7, 5), (64, 48), (13, 97), (2, 2), (40, 12)])
def test_a_flat_picture_stays_flat(fit, size):
    """Weights that do not sum to 1 show as a darker border."""
    levels = torch.tensor([0.0, 0.3, 1.0]).reshape(3, 1, 1, 1)
    result = fitted(levels.expand(3, 3, 12, 20), size, fit)
    assert tuple(result.shape) == (3, 3, size[1], size[0])
    assert (result - levels).abs().max() < 1e-5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", [(16, 16), (9, 31), (64, 10)])
def test_the_result_has_the_size_and_stays_within_0_and_1(fit, source):
    for size in ((32, 18), (18, 32), (2, 40), (20, 20)):
        result = fitted(_random(*source), size, fit)
        assert tuple(result.shape) == (2, 3, size[1], size[0])
        assert result.min() >= 0, size
        assert result.max() <= 1, size
        assert torch.isfinite(result).all(), size


def _quadrants(height, width):
    """A picture whose four corners have levels of their own."""
    picture = torch.zeros(1, 3, height, width)
    picture[:, :, : height // 2, width // 2 :] = 0.3
    picture[:, :, height // 2 :, : width // 2] = 0.6
    picture[:, :, height // 2 :, width // 2 :] = 0.9
    return picture


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (60, 20), (20, 60)])
def test_stretch_keeps_all_four_corners(size):
    """Width and height exchanged, or a mirrored axis, would swap them."""
    result = fitted(_quadrants(32, 32), size, "stretch")[0, 0]
    corners = [float(result[y, x]) for y in (1, -2) for x in (1, -2)]
    assert corners == pytest.approx([0, 0.3, 0.6, 0.9], abs=0.05)


def test_crop_fills_and_cuts_both_sides_alike():
    picture = torch.zeros(1, 3, 20, 60)
    picture[..., 20:40] = 1  # the middle third is what a square can show
    result = fitted(picture, (40, 40), "crop")
    assert result[..., 1:-1].min() > 0.9  # the window rings a little at the cut
    left, right = result[0, 0, :, :20], result[0, 0, :, 20:].flip(1)
    assert (left - right).abs().max() < 1e-4


def test_crop_without_a_change_of_scale_copies_pixels():
    pictures = _random(20, 60)
    assert torch.equal(fitted(pictures, (30, 20), "crop"), pictures[..., 15:45])


@pytest.mark.parametrize(("size", "axis"), [((60, 20), 3), ((20, 60), 2)])
def test_pad_shows_all_on_black(size, axis):
    result = fitted(torch.ones(1, 3, 10, 10), size, "pad")
    lit = result[0, 0].amax(dim=0 if axis == 3 else 1) > 0.5
    places = torch.nonzero(lit).flatten().tolist()
    assert places == list(range(20, 40))
    assert (result[0, 0].sum() - 400).abs() < 1e-2


@pytest.mark.parametrize("width", [34, 36, 38, 46])
def test_borders_are_even_so_that_colours_stay_on_their_pixels(width):
    result = fitted(torch.ones(1, 3, 32, 32), (width, 32), "pad")
    first = int(torch.nonzero(result[0, 0, 0])[0])
    assert first % 2 == 0
    assert abs(first - (width - 32) / 2) <= 1


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("source", [(9, 9), (9, 8), (8, 9)])
def test_an_odd_side_loses_a_line_and_is_not_blurred(fit, source):
    pictures = _random(*source)
    assert torch.equal(fitted(pictures, (8, 8), fit), pictures[:, :, :8, :8])


def _pillow(picture, size):
    channels = [
        Image.fromarray(channel.numpy()).resize(size, Image.Resampling.LANCZOS)
        for channel in picture
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels]), 0, 1)


@pytest.mark.parametrize("size", [(96, 64), (40, 72), (17, 11), (24, 16), (300, 20), (448, 10)])
@pytest.mark.parametrize("kind", ["random", "smooth"])
def test_stretch_is_pillows_lanczos(kind, size):
    """Up without blur, down without aliasing. Pillow drops taps past the edge, we repeat it."""
    picture = _random(32, 48)[:1] if kind == "random" else _smooth(32, 48)
    result = fitted(picture, size, "stretch")[0].numpy()
    expected = _pillow(picture[0], size)
    edge_x = max(3, int(np.ceil(3 * size[0] / 48)))
    edge_y = max(3, int(np.ceil(3 * size[1] / 32)))
    inner = (slice(None), slice(edge_y, size[1] - edge_y), slice(edge_x, size[0] - edge_x))
    assert np.abs(result - expected)[inner].max() < 1e-4
    assert np.abs(result - expected).max() < (0.02 if kind == "smooth" else 0.35)


def test_each_picture_is_resized_by_itself():
    pictures = _random(10, 14)
    together = fitted(pictures, (32, 20), "stretch")
    alone = torch.cat([fitted(picture[None], (32, 20), "stretch") for picture in pictures])
    assert (together - alone).abs().max() < 1e-6


def test_precision_and_device_are_the_pictures_own():
    result = fitted(_random(8, 8).double(), (12, 12), "stretch")
    assert result.dtype == torch.float64
