"""The compiled pass over a CPU's pictures gives what torch's own operations give."""

import numpy as np
import pytest
import torch

from asha_ray.video.colour import rgb_to_yuv420
from asha_ray.video.convert import prepare, video_frames
from asha_ray.video.resize import _weights, bands, fitted
from tests.unit.video.test_colour import _flat, _planes, _reference

SOURCES = [(2, 2), (32, 32), (48, 30), (17, 41)]
SIZES = [(32, 32), (64, 36), (20, 50), (2, 2), (130, 8)]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_frames_are_those_of_the_dense_matrices(source, size, fit):
    """What is seen of a cut, on which lines it lies, and its border, to the byte."""
    pictures = torch.rand(2, 3, source[1], source[0], generator=torch.Generator().manual_seed(1))
    exact = rgb_to_yuv420(fitted(pictures.double(), size, fit)).numpy().astype(int)
    found = video_frames(pictures, size, fit)
    assert found.dtype == torch.uint8
    difference = np.abs(found.numpy() - exact)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002, "more than ties of rounding"


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 6), (6, 2), (16, 24), (30, 134)])
def test_random_pictures_match_the_standard(height, width):
    pictures = np.random.default_rng(height).uniform(0, 1, (3, 3, height, width))
    pictures = pictures.astype(np.float32)
    frames = video_frames(torch.from_numpy(pictures), (width, height), "crop").numpy()
    for plane, exact in zip(_planes(frames, height, width), _reference(pictures), strict=True):
        assert np.abs(plane - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [((1, 1, 1), (235, 128, 128)), ((0, 0, 0), (16, 128, 128)), ((1, 0, 0), (63, 102, 240))],
)
@pytest.mark.parametrize("size", [(4, 4), (12, 8)], ids=str)
def test_known_colours_resized_or_not(rgb, yuv, size):
    frames = video_frames(torch.tensor(_flat(*rgb), dtype=torch.float32), size, "crop").numpy()
    for plane, level in zip(_planes(frames, size[1], size[0]), yuv, strict=True):
        assert (plane == level).all()


def test_what_is_a_little_outside_stays_a_byte():
    picture = torch.full((1, 3, 2, 2), 1.2)
    assert video_frames(picture, (2, 2), "crop")[0, 0] == 255
    assert video_frames(-picture, (2, 2), "crop")[0, 0] == 0


def test_pictures_in_any_layout_and_precision():
    pictures = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    expected = video_frames(pictures, (12, 8), "crop")
    turned = pictures.contiguous(memory_format=torch.channels_last)
    assert torch.equal(video_frames(turned, (12, 8), "crop"), expected)
    difference = video_frames(pictures.double(), (12, 8), "crop").int() - expected.int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize(("source", "target"), [(448, 1920), (448, 100), (7, 300), (9, 5), (8, 8)])
def test_bands_are_the_matrix_without_its_zeros(source, target):
    seen = (target // 4, target - target // 8)
    first, weights = bands(source, target, seen)
    dense = np.zeros((seen[1] - seen[0], source), np.float32)
    for line, (at, taps) in enumerate(zip(first, weights, strict=True)):
        dense[line, at : at + len(taps)] = taps
    expected = np.eye(source)[slice(*seen)] if source == target else _weights(source, target)
    np.testing.assert_array_equal(
        dense, np.asarray(expected)[slice(*seen)] if source != target else expected
    )
    assert weights.shape[1] <= min(source, 6 * max(1, -(-source // target)) + 2)


def test_preparing_may_be_done_twice():
    prepare()
    prepare()
