"""Fitting a model's pictures into the video's size: Lanczos, up and down, on any device.

Resampling is separable and linear, so each direction is one matrix, computed once; the weights
are those of Lanczos with three lobes, widened when shrinking so that nothing aliases.
"""

import functools
from math import ceil, floor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asha_ray.values import Size

LOBES = 3


class Placement(NamedTuple):
    """How a picture comes into a frame.

    Attributes:
        scaled: width and height of the whole picture after resampling.
        rows: the first and, exclusive, the last of its rows that is seen.
        columns: likewise.
        top: the frame's line that shows the first of these rows.
        left: the frame's column that shows the first of these columns.
    """

    scaled: Size
    rows: tuple[int, int]
    columns: tuple[int, int]
    top: int
    left: int


def placement(source: Size, size: Size, fit: str) -> Placement:
    """How pictures of size `source` come into frames of `size` (width, height both)."""
    scaled = _scaled_size(source, size, fit)
    left, columns = _along(scaled[0], size[0])
    top, rows = _along(scaled[1], size[1])
    return Placement(scaled, rows, columns, top, left)


def _along(have: int, wanted: int) -> tuple[int, tuple[int, int]]:
    if have >= wanted:
        first = (have - wanted) // 2
        return 0, (first, first + wanted)
    # Even borders keep the picture's pixels in step with the chroma grid.
    return (wanted - have) // 4 * 2, (0, have)


def fitted(pictures: Tensor, size: Size, fit: str) -> Tensor:
    """Pictures `[m, 3, H, W]` in 0..1 at `size` (width, height), in 0..1.

    Args:
        pictures: RGB in 0..1.
        size: width and height of the result.
        fit: `crop` fills and cuts what is over, `pad` shows all on black, `stretch` distorts.
    """
    height, width = pictures.shape[2:]
    if (width, height) == size:
        return pictures
    place = placement((width, height), size, fit)
    if place.scaled == (width, height):
        pictures = pictures[:, :, slice(*place.rows), slice(*place.columns)]
    else:
        rows = _weights(height, place.scaled[1])[slice(*place.rows)].to(pictures)
        columns = _weights(width, place.scaled[0])[slice(*place.columns)].to(pictures)
        pictures = (rows @ (pictures @ columns.T)).clamp(0, 1)
    after_x = size[0] - place.left - pictures.shape[3]
    after_y = size[1] - place.top - pictures.shape[2]
    if not (place.left or place.top or after_x or after_y):
        return pictures
    return torch.nn.functional.pad(pictures, (place.left, after_x, place.top, after_y))


def bands(
    source: int, target: int, seen: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The same weights without their zeros, for the resampled lines from `seen[0]` to `seen[1]`.

    Returns:
        The first source line of each, and `[lines, taps]` weights of that and the next ones.
    """
    if source == target:  # only cut, so nothing is resampled
        return np.arange(*seen), np.ones((seen[1] - seen[0], 1), np.float32)
    matrix = _weights(source, target).numpy()[slice(*seen)]
    used = matrix != 0
    first = used.argmax(axis=1)
    num_taps = int((source - used[:, ::-1].argmax(axis=1) - first).max())
    first = np.minimum(first, source - num_taps)
    taps = first[:, None] + np.arange(num_taps)
    return first, np.take_along_axis(matrix, taps, axis=1)


def _scaled_size(source: Size, target: Size, fit: str) -> Size:
    if fit == "stretch":
        return target
    ratios = [wanted / have for wanted, have in zip(target, source, strict=True)]
    if all(0 <= have - wanted <= 1 for wanted, have in zip(target, source, strict=True)):
        return source  # an odd side loses a line rather than be resampled
    scale = max(ratios) if fit == "crop" else min(ratios)
    width, height = (max(1, round(side * scale)) for side in source)
    return width, height


@functools.cache
def _weights(source: int, target: int) -> Tensor:
    """The matrix `[target, source]` that resamples a line; its rows sum to 1."""
    scale = source / target
    reach = LOBES * max(1.0, scale)
    matrix = np.zeros((target, source))
    for index in range(target):
        centre = (index + 0.5) * scale - 0.5
        taps = np.arange(ceil(centre - reach), floor(centre + reach) + 1)
        distance = (taps - centre) / max(1.0, scale)
        values = np.sinc(distance) * np.sinc(distance / LOBES)
        values[np.abs(distance) >= LOBES] = 0
        np.add.at(matrix[index], np.clip(taps, 0, source - 1), values / values.sum())
    return torch.from_numpy(matrix).float()
