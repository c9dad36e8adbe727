"""Fitting a model's pictures into the video's size: Lanczos, up and down, on any device.

Resampling is separable and linear, so each direction is one matrix, computed once; the weights
are those of Lanczos with three lobes, widened when shrinking so that nothing aliases.
"""

import functools
from math import ceil, floor

import numpy as np
import torch
from torch import Tensor

from asha_ray.values import Size

LOBES = 3


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
    inner = _scaled_size((width, height), size, fit)
    if inner != (width, height):
        rows = _weights(height, inner[1]).to(pictures)
        columns = _weights(width, inner[0]).to(pictures)
        pictures = (rows @ pictures @ columns.T).clamp(0, 1)
    return _placed(pictures, size)


def _scaled_size(source: Size, target: Size, fit: str) -> Size:
    if fit == "stretch":
        return target
    ratios = [wanted / have for wanted, have in zip(target, source, strict=True)]
    if all(0 <= have - wanted <= 1 for wanted, have in zip(target, source, strict=True)):
        return source  # an odd side loses a line rather than be resampled
    scale = max(ratios) if fit == "crop" else min(ratios)
    width, height = (max(1, round(side * scale)) for side in source)
    return width, height


def _placed(pictures: Tensor, size: Size) -> Tensor:
    width, height = size
    over_y, over_x = pictures.shape[2] - height, pictures.shape[3] - width
    top, left = max(0, over_y // 2), max(0, over_x // 2)
    pictures = pictures[:, :, top : top + height, left : left + width]
    missing_y, missing_x = max(0, -over_y), max(0, -over_x)
    if not missing_y and not missing_x:
        return pictures
    # Even borders keep the picture's pixels in step with the chroma grid.
    before_y, before_x = missing_y // 4 * 2, missing_x // 4 * 2
    border = (before_x, missing_x - before_x, before_y, missing_y - before_y)
    return torch.nn.functional.pad(pictures, border)


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
