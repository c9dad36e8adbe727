"""Pictures to the bytes of video frames of a given size, by whatever is fastest on their device.

On a CPU one compiled pass resizes and converts line by line, so that full-size pictures in float
never exist; elsewhere torch's own operations do the same on the device.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asha_ray.values import ByteArray, Size
from asha_ray.video.colour import rgb_to_yuv420
from asha_ray.video.resize import bands, fitted, placement


def video_frames(pictures: Tensor, size: Size, fit: str) -> Tensor:
    """Planar 4:2:0 frames at a video's size.

    Args:
        pictures: `[m, 3, H, W]` RGB float in 0..1.
        size: width and height of the video, even.
        fit: see `fitted`.

    Returns:
        `[m, height * width * 3 / 2]` uint8 on the pictures' device.
    """
    if pictures.device.type == "cpu" and pictures.dtype == torch.float32:
        return torch.from_numpy(_on_cpu(np.ascontiguousarray(pictures.numpy()), size, fit))
    return rgb_to_yuv420(fitted(pictures, size, fit))


def prepare() -> None:
    """Load the compiled pass, or compile it where this machine never has; takes up to seconds."""
    video_frames(torch.zeros(1, 3, 4, 4), (4, 4), "crop")
    video_frames(torch.zeros(1, 3, 4, 4), (8, 8), "crop")


def _on_cpu(pictures: NDArray[np.float32], size: Size, fit: str) -> ByteArray:
    from asha_ray.video.kernels import convert, resize_and_convert

    height, width = pictures.shape[2:]
    frames = np.empty((len(pictures), size[0] * size[1] * 3 // 2), np.uint8)
    if (width, height) == size:
        convert(pictures, size[1], size[0], frames)
        return frames
    rows, columns, top, left = _geometry((width, height), size, fit)
    resize_and_convert(pictures, *columns, *rows, top, left, size[1], size[0], frames)
    return frames


Band = tuple[NDArray[np.int64], NDArray[np.float32]]


@cache
def _geometry(source: Size, size: Size, fit: str) -> tuple[Band, Band, int, int]:
    """Weights of the lines that will be seen, and where the first of them lies in the frame."""
    place = placement(source, size, fit)
    return (
        bands(source[1], place.scaled[1], place.rows),
        bands(source[0], place.scaled[0], place.columns),
        place.top,
        place.left,
    )
