"""Colour: BT.709, limited range, left-sited 4:2:0, against the standard's own formulas."""

import numpy as np
import pytest
import torch

from asha_ray.video.colour import rgb_to_yuv420


def _reference(pictures):
    """ITU-R BT.709-6 items 3.2 to 3.5 in float64, unrounded: Y, Cb, Cr planes of `[m, 3, H, W]`.

    Chroma lies on the left pixel of each pair and between two lines: 1-2-1 along a line with the
    edge repeated, and the mean of two lines.
    """
    red, green, blue = np.moveaxis(pictures.astype(np.float64), 1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    planes = [16 + 219 * luma]
    for colour, share in ((blue, 0.0722), (red, 0.2126)):
        difference = 128 + 224 * (colour - luma) / (2 * (1 - share))
        num_frames, height, width = difference.shape
        small = np.zeros((num_frames, height // 2, width // 2))
        for row in range(height // 2):
            for column in range(width // 2):
                two = difference[:, 2 * row : 2 * row + 2]
                left = two[:, :, max(2 * column - 1, 0)]
                here, right = two[:, :, 2 * column], two[:, :, 2 * column + 1]
                small[:, row, column] = ((left + 2 * here + right) / 4).mean(axis=1)
        planes.append(small)
    return planes


def _planes(frames, height, width):
    luma = frames[:, : height * width].reshape(-1, height, width)
    blue, red = np.split(frames[:, height * width :], 2, axis=1)
    shape = (-1, height // 2, width // 2)
    return luma, blue.reshape(shape), red.reshape(shape)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 6), (6, 2), (16, 24), (30, 14)])
def test_random_pictures_match_the_standard(height, width):
    pictures = np.random.default_rng(height).uniform(0, 1, (3, 3, height, width))
    frames = rgb_to_yuv420(torch.from_numpy(pictures.astype(np.float32)))
    assert (frames.dtype, tuple(frames.shape)) == (torch.uint8, (3, height * width * 3 // 2))
    found = _planes(frames.numpy(), height, width)
    for plane, exact in zip(found, _reference(pictures.astype(np.float32)), strict=True):
        # Half a level is rounding; a hair more is a tie that float32 sees on the other side.
        assert np.abs(plane - exact).max() <= 0.5 + 1e-3


def _flat(red, green, blue, height=4, width=4):
    return np.broadcast_to(np.array([red, green, blue])[None, :, None, None], (1, 3, height, width))


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((1, 1, 1), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((1, 0, 0), (63, 102, 240)),
        ((0, 1, 0), (173, 42, 26)),
        ((0, 0, 1), (32, 240, 118)),
        ((0, 1, 1), (188, 154, 16)),
        ((0.5, 0.5, 0.5), (126, 128, 128)),
    ],
    ids=["white", "black", "red", "green", "blue", "cyan", "grey"],
)
def test_known_colours(rgb, yuv):
    """BT.601's matrix gives red 81; full range gives white 255."""
    frames = rgb_to_yuv420(torch.tensor(_flat(*rgb), dtype=torch.float32)).numpy()
    for plane, level in zip(_planes(frames, 4, 4), yuv, strict=True):
        if rgb[0] == 0.5:
            assert np.abs(plane.astype(int) - level).max() <= 1  # 125.5 is a tie
        else:
            assert (plane == level).all()


def test_chroma_lies_on_the_left_pixel_of_each_pair():
    """Centred chroma would shift colour against brightness by half a pixel."""
    picture = np.zeros((1, 3, 2, 8), np.float32)
    picture[:, 0, :, 4] = 1  # one red line on an even column
    red = _planes(rgb_to_yuv420(torch.from_numpy(picture)).numpy(), 2, 8)[2][0, 0].astype(int)
    assert red[2] > 180
    assert (red[[0, 1, 3]] == 128).all()
    picture = np.roll(picture, 1, axis=3)  # on an odd column both neighbours see a quarter
    red = _planes(rgb_to_yuv420(torch.from_numpy(picture)).numpy(), 2, 8)[2][0, 0].astype(int)
    assert red[2] == red[3] == 156


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_a_little_outside_stays_a_byte(dtype):
    """A wrapped 256 would be a black dot in a white face."""
    picture = torch.full((1, 3, 2, 2), 1.2, dtype=dtype)
    assert rgb_to_yuv420(picture)[0, 0] == 255
    assert rgb_to_yuv420(-picture)[0, 0] == 0


def test_every_frame_is_its_own():
    pictures = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    together = rgb_to_yuv420(pictures)
    alone = torch.cat([rgb_to_yuv420(pictures[i : i + 1]) for i in range(5)])
    assert torch.equal(together, alone)
