"""Curves brought to 0..1: by the loudest moment of a track, or by how loud a mix is around it."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from asha_ray.audio.grid import GRID_FPS
from asha_ray.values import FloatArray, Normalisation

ROLLING_S = 60
QUIETEST = 0.05
"""No passage is raised as if it were quieter than this part of the loudest."""

RESIDUE = 1e-10
"""Below this is no sound but the residue of arithmetic."""


def to_unit(curve: NDArray[np.floating], by: Normalisation = "track") -> FloatArray:
    """A curve `[g]` at least 0, or each column of `[g, c]`, in 0..1.

    By `track`, divided by its maximum. By `rolling`, divided by the maximum of the minute around,
    averaged over a minute: that is never less than the value itself, and changes slowly.

    >>> to_unit(np.array([0.0, 1.0, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    if curve.ndim == 2:
        return np.stack([to_unit(column, by) for column in curve.T], axis=1)
    maximum = np.asarray(curve.max(initial=0))
    if by == "track":
        level = maximum
    else:
        # An odd window reaches equally far both ways, so each average is over maxima that all
        # saw the value itself.
        width = ROLLING_S * GRID_FPS + 1
        peaks = maximum_filter1d(curve.astype(np.float64), width, mode="nearest")
        around = uniform_filter1d(peaks, width, mode="nearest")
        level = np.maximum(around, QUIETEST * maximum)
    # A reciprocal, because that is how seed envelopes were scaled.
    scale = np.where(maximum > RESIDUE, 1 / np.maximum(level, RESIDUE), 0.0)
    return np.asarray(np.minimum(curve * scale, 1), np.float32)
