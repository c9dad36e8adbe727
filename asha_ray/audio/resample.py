"""Curves of the 60 Hz grid at the frames of a video of any rate.

Shapes: g frames of the grid, n frames of the video.
"""

from fractions import Fraction

import numpy as np

from asha_ray.audio.grid import GRID_FPS
from asha_ray.values import FloatArray, IndexArray


def at_video_frames(
    curve: FloatArray, num_frames: int, fps: Fraction, *, keep_peaks: bool = False
) -> FloatArray:
    """A curve of the 60 Hz grid at a video's frames: what falls to each frame, or between two.

    A frame stands for the half-open interval of half a frame to each side. It takes the maximum
    (`keep_peaks`) or mean of the grid values in there, or where there are none, the value
    interpolated at its time.

    Args:
        curve: `[g]` or `[g, c]`.
        num_frames: n.
        fps: the video's frames per second.
        keep_peaks: take maxima instead of means.

    Returns:
        `[n]` or `[n, c]`.
    """
    if curve.ndim == 2:
        columns = [at_video_frames(c, num_frames, fps, keep_peaks=keep_peaks) for c in curve.T]
        return np.stack(columns, axis=1)
    if fps == GRID_FPS:
        return curve[:num_frames]
    owner = np.minimum(_frame_of_grid(np.arange(len(curve)), fps), num_frames - 1)
    times = np.arange(num_frames) * float(GRID_FPS / fps)
    result = np.interp(times, np.arange(len(curve)), curve)
    owned = np.unique(owner)
    starts = np.searchsorted(owner, owned)
    if keep_peaks:
        result[owned] = np.maximum.reduceat(curve, starts)
    else:
        result[owned] = np.add.reduceat(curve, starts) / np.diff([*starts, len(curve)])
    return np.asarray(result, np.float32)


def nearest_video_frames(
    grid_frames: IndexArray, num_frames: int, fps: Fraction
) -> tuple[IndexArray, IndexArray]:
    """The video frames of beats, and which beats they are: of several in one frame the first."""
    nearest = np.minimum(_frame_of_grid(grid_frames, fps), num_frames - 1)
    return np.unique(nearest, return_index=True)


def _frame_of_grid(grid_frames: IndexArray, fps: Fraction) -> IndexArray:
    # round half up of g * fps / 60, in integers
    ratio = fps / GRID_FPS
    return (2 * grid_frames * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)
