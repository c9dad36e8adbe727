"""Compiled loops (Numba) over the pixels of a CPU's pictures.

They are plain Python here, compiled at their first use and kept on disk after that. They let go of
the interpreter's lock, so that decoders go on beside them. Constants as in `colour`.
"""

from typing import Any

import numba
import numpy as np

from asha_ray.video.colour import BLUE, CHROMA_RANGE, GREEN, LUMA_RANGE, RED

_F = np.float32
_Y_RED, _Y_GREEN, _Y_BLUE = (_F(share * LUMA_RANGE) for share in (RED, GREEN, BLUE))
_RED, _GREEN, _BLUE = _F(RED), _F(GREEN), _F(BLUE)
# A chroma sample is a sum of eight weights (two lines of 1-2-1), hence the 8.
_CB = _F(CHROMA_RANGE / (2 * (1 - BLUE)) / 8)
_CR = _F(CHROMA_RANGE / (2 * (1 - RED)) / 8)
# With the half that makes truncation a rounding.
_Y_OFFSET, _C_OFFSET = _F(16.5), _F(128.5)
_LOW, _HIGH = _F(0), _F(255)
_BLOCK = 16


def _compiled(function: Any) -> Any:
    # Contraction and reordering let the loops vectorise; what they change is far below a level.
    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": {"contract", "reassoc", "nsz"},
        "error_model": "numpy",
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that may be written to: compile in every process
        return numba.njit(**options)(function)


def _byte(value: Any) -> Any:
    return np.uint8(np.int32(min(max(value, _LOW), _HIGH)))


_byte = _compiled(_byte)


def _write_lines(red: Any, green: Any, blue: Any, luma: Any, cb: Any, cr: Any, work: Any) -> None:
    """Two lines `[2, W]` of each colour to two of luma `[2, W]` and one of chroma `[W / 2]`."""
    width = red.shape[1]
    for line in range(2):
        for x in range(width):
            luma[line, x] = _byte(
                red[line, x] * _Y_RED
                + green[line, x] * _Y_GREEN
                + blue[line, x] * _Y_BLUE
                + _Y_OFFSET
            )
    for x in range(width):
        both_red = red[0, x] + red[1, x]
        both_blue = blue[0, x] + blue[1, x]
        brightness = _RED * both_red + _GREEN * (green[0, x] + green[1, x]) + _BLUE * both_blue
        work[0, x + 1] = both_blue - brightness
        work[1, x + 1] = both_red - brightness
    work[0, 0], work[1, 0] = work[0, 1], work[1, 1]  # the edge is repeated
    for x in range(width // 2):
        at = 2 * x
        cb[x] = _byte((work[0, at] + 2 * work[0, at + 1] + work[0, at + 2]) * _CB + _C_OFFSET)
    for x in range(width // 2):
        at = 2 * x
        cr[x] = _byte((work[1, at] + 2 * work[1, at + 1] + work[1, at + 2]) * _CR + _C_OFFSET)


_write_lines = _compiled(_write_lines)


def convert(pictures: Any, height: int, width: int, frames: Any) -> None:
    """Pictures `[m, 3, H, W]` float32 to `frames` `[m, H * W * 3 / 2]` uint8."""
    area = height * width
    work = np.empty((2, width + 1), np.float32)
    for index in range(pictures.shape[0]):
        luma = frames[index, :area].reshape(height, width)
        cb = frames[index, area : area + area // 4].reshape(height // 2, width // 2)
        cr = frames[index, area + area // 4 :].reshape(height // 2, width // 2)
        for pair in range(height // 2):
            at = 2 * pair
            _write_lines(
                pictures[index, 0, at : at + 2],
                pictures[index, 1, at : at + 2],
                pictures[index, 2, at : at + 2],
                luma[at : at + 2],
                cb[pair],
                cr[pair],
                work,
            )


convert = _compiled(convert)


def _resample(source: Any, column_first: Any, column_weights: Any, target: Any) -> None:
    """Resample lines `[rows, W]` along themselves to `target` `[rows, w]`.

    It works on columns, which lie together once turned, and turns a few of them back at a time.
    """
    num_rows, num_source = source.shape
    num_columns, num_taps = column_weights.shape
    turned = np.empty((num_source, num_rows), np.float32)
    for row in range(num_rows):
        for x in range(num_source):
            turned[x, row] = source[row, x]
    block = np.empty((_BLOCK, num_rows), np.float32)
    for start in range(0, num_columns, _BLOCK):
        count = min(_BLOCK, num_columns - start)
        for index in range(count):
            column, first = block[index], column_first[start + index]
            weight = column_weights[start + index, 0]
            line = turned[first]
            for row in range(num_rows):
                column[row] = line[row] * weight
            for tap in range(1, num_taps):
                weight = column_weights[start + index, tap]
                line = turned[first + tap]
                for row in range(num_rows):
                    column[row] += line[row] * weight
        for row in range(num_rows):
            for index in range(count):
                target[row, start + index] = block[index, row]


_resample = _compiled(_resample)


def _blend(lines: Any, first: int, weights: Any, target: Any) -> None:
    """One resampled line `[w]`, the weighted sum of neighbouring `lines` `[rows, w]`, in 0..1."""
    num_taps, width = weights.shape[0], target.shape[0]
    target[:] = 0
    padded = np.zeros(num_taps + 5, np.float32)
    padded[:num_taps] = weights
    last = num_taps - 1
    for tap in range(0, num_taps, 6):  # six in a pass: as many as enlarging has
        line_0 = lines[first + tap]
        line_1 = lines[first + min(tap + 1, last)]
        line_2 = lines[first + min(tap + 2, last)]
        line_3 = lines[first + min(tap + 3, last)]
        line_4 = lines[first + min(tap + 4, last)]
        line_5 = lines[first + min(tap + 5, last)]
        weight_0, weight_1, weight_2 = padded[tap], padded[tap + 1], padded[tap + 2]
        weight_3, weight_4, weight_5 = padded[tap + 3], padded[tap + 4], padded[tap + 5]
        for x in range(width):
            target[x] += (
                line_0[x] * weight_0
                + line_1[x] * weight_1
                + line_2[x] * weight_2
                + line_3[x] * weight_3
                + line_4[x] * weight_4
                + line_5[x] * weight_5
            )
    for x in range(width):
        target[x] = min(max(target[x], _F(0)), _F(1))


_blend = _compiled(_blend)


def resize_and_convert(
    pictures: Any,
    column_first: Any,
    column_weights: Any,
    row_first: Any,
    row_weights: Any,
    top: int,
    left: int,
    height: int,
    width: int,
    frames: Any,
) -> None:
    """Resize pictures `[m, 3, H, W]`, place them on black, and convert them to `frames`.

    Args:
        pictures: float32.
        column_first: `[w]` first column of each tap window; `column_weights` is `[w, taps]`.
        column_weights: of the columns that are seen.
        row_first: `[h]`, and `row_weights` `[h, taps]`, of the rows that are seen.
        row_weights: of the rows.
        top: the frame's line that shows the first row.
        left: the frame's column that shows the first column.
        height: of the frames, even.
        width: of the frames, even.
        frames: `[m, height * width * 3 / 2]` uint8, written to.
    """
    area = height * width
    num_rows, num_columns = row_weights.shape[0], column_weights.shape[0]
    low = row_first.min()
    high = row_first.max() + row_weights.shape[1]
    work = np.empty((2, width + 1), np.float32)
    narrow = np.empty((3, high - low, num_columns), np.float32)
    for index in range(pictures.shape[0]):
        luma = frames[index, :area].reshape(height, width)
        cb = frames[index, area : area + area // 4].reshape(height // 2, width // 2)
        cr = frames[index, area + area // 4 :].reshape(height // 2, width // 2)
        for colour in range(3):
            source = pictures[index, colour, low:high]
            _resample(source, column_first, column_weights, narrow[colour])
        lines = np.zeros((3, 2, width), np.float32)
        for pair in range(height // 2):
            for odd in range(2):
                row = 2 * pair + odd - top
                for colour in range(3):
                    target = lines[colour, odd, left : left + num_columns]
                    if 0 <= row < num_rows:
                        first = row_first[row] - low
                        _blend(narrow[colour], first, row_weights[row], target)
                    else:
                        target[:] = 0
            at = 2 * pair
            _write_lines(lines[0], lines[1], lines[2], luma[at : at + 2], cb[pair], cr[pair], work)


resize_and_convert = _compiled(resize_and_convert)
