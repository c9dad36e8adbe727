"""RGB to the bytes of a video frame: BT.709, limited range, 4:2:0, on the decoder's device.

Chroma samples lie where H.264 puts them by default: on the left of each pair of pixels, between
two lines (ITU-T H.264, figure E-1), so a chroma sample is the mean of two lines of a horizontal
1-2-1 filter. Source of the matrix: ITU-R BT.709-6, items 3.2 to 3.5.
"""

import torch
from torch import Tensor
from torch.nn import functional

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
LUMA_RANGE, LUMA_OFFSET = 219.0, 16.0
CHROMA_RANGE, CHROMA_OFFSET = 224.0, 128.0


def rgb_to_yuv420(pictures: Tensor) -> Tensor:
    """Planar 4:2:0 frames of RGB pictures.

    Args:
        pictures: `[m, 3, H, W]` float in 0..1, H and W even.

    Returns:
        `[m, H * W * 3 / 2]` uint8 on the same device: the Y plane, then Cb, then Cr.
    """
    num_frames, _, height, width = pictures.shape
    red, green, blue = pictures.unbind(1)
    luma = RED * red + GREEN * green + BLUE * blue
    # Subtracting first and filtering then is the same as the reverse, on half the planes.
    differences = torch.stack(
        [(blue - luma) / (2 * (1 - BLUE)), (red - luma) / (2 * (1 - RED))], dim=1
    )
    y_plane = _to_bytes(luma * LUMA_RANGE + LUMA_OFFSET)
    chroma = _to_bytes(_subsample(differences) * CHROMA_RANGE + CHROMA_OFFSET)
    return torch.cat(
        [
            y_plane.reshape(num_frames, height * width),
            chroma.reshape(num_frames, height * width // 2),
        ],
        dim=1,
    )


def _subsample(planes: Tensor) -> Tensor:
    lines = (planes[:, :, 0::2] + planes[:, :, 1::2]) / 2
    padded = functional.pad(lines, (1, 0, 0, 0), mode="replicate")
    return (padded[..., 0:-1:2] + 2 * padded[..., 1::2] + padded[..., 2::2]) / 4


def _to_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
