"""What one second of sound is like: its timbre, and how steady its partials are.

Shapes: m frames of whole seconds (the last may be short), s seconds, 128 mel bands.
"""

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter1d

from asha_ray.audio.grid import GRID_FPS, N_FFT, SAMPLE_RATE
from asha_ray.values import FloatArray

NUM_TIMBRE = 20
FAINT_DB = -60.0
"""Mel levels below, some 100 dB under full scale, all sound alike."""

HZ_PER_BIN = SAMPLE_RATE / N_FFT
FINE_BINS = slice(round(100 / HZ_PER_BIN), round(4000 / HZ_PER_BIN))
"""Where voices and most instruments have their partials."""
ENVELOPE_BINS = 21
"""300 Hz: smoothing over this leaves formants and takes out partials."""
STEADY_LAGS = (6, 15)
"""A tenth and a quarter of a second: a note keeps its pitch as long, a syllable glides."""


def partials(power: FloatArray) -> FloatArray:
    """The fine structure of spectra `[m, 1025]`: log power less its envelope, of unit length.

    Returns:
        `[m, 260]`, 0 where there is no sound.
    """
    level = np.log(power[:, FINE_BINS] + np.float32(1e-9))
    fine = level - uniform_filter1d(level, ENVELOPE_BINS, axis=1, mode="nearest")
    length = np.sqrt(np.square(fine).sum(axis=1, keepdims=True))
    return np.asarray(fine / np.maximum(length, 1e-3), np.float32)


def steadiness(fine: FloatArray) -> FloatArray:
    """How alike the partials `[m, 260]` are a tenth and a quarter of a second apart.

    Returns:
        `[s, 2]` mean cosine similarity over each second, within that second.
    """
    return np.stack([_alike(fine, lag) for lag in STEADY_LAGS], axis=1)


def timbre(mel_db: FloatArray) -> FloatArray:
    """Mel cepstrum `[s, 20]` of each second's mean mel levels `[m, 128]` in dB."""
    starts = np.arange(0, len(mel_db), GRID_FPS)
    sums = np.add.reduceat(np.maximum(mel_db, np.float32(FAINT_DB)), starts, axis=0)
    means = sums / np.diff(starts, append=len(mel_db))[:, None]
    return np.asarray(fft.dct(means, axis=1, norm="ortho")[:, :NUM_TIMBRE], np.float32)


def _alike(fine: FloatArray, lag: int) -> FloatArray:
    products = np.einsum("mb,mb->m", fine[lag:], fine[:-lag]) if len(fine) > lag else fine[:0, 0]
    padded = np.zeros(-(-len(fine) // GRID_FPS) * GRID_FPS, np.float32)
    padded[: len(products)] = products
    # Only pairs within one second, so that no second hangs on the next, perhaps another block's.
    within = padded.reshape(-1, GRID_FPS)[:, : GRID_FPS - lag]
    return np.asarray(within.mean(axis=1))
