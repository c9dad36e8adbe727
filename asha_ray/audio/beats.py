"""Beats on the 60 Hz grid: librosa's tracker for a track, and one that follows a mix's tempo.

Shapes: g frames of the grid, k beats.
"""

import warnings

import numpy as np
from librosa.beat import beat_track
from numpy.typing import NDArray

from asha_ray.audio.grid import HOP_LENGTH, SAMPLE_RATE
from asha_ray.values import IndexArray


def track_beats(onset_strength: NDArray[np.floating]) -> tuple[float, IndexArray]:
    """One tempo and its beats, by librosa's tracker (Ellis 2007) with its own settings.

    Args:
        onset_strength: `[g]`, in any unit.

    Returns:
        Beats per minute, 0 in silence, and the beats' frames `[k]`.
    """
    if not onset_strength.any():
        return 0.0, np.zeros(0, np.int64)
    with warnings.catch_warnings():
        # A clip shorter than the tracker's window is fine; it merely has few beats.
        warnings.simplefilter("ignore", UserWarning)
        tempo, beats = beat_track(
            onset_envelope=onset_strength, sr=SAMPLE_RATE, hop_length=HOP_LENGTH
        )
    return float(np.atleast_1d(tempo)[0]), np.asarray(beats, np.int64)
