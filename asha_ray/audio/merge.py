"""Blocks put together again: the values that the whole track would have given.

Shapes: g frames of the 60 Hz grid, s seconds (the last may be short).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from asha_ray.audio.grid import HOP_LENGTH, N_FFT
from asha_ray.audio.measure import BlockFeatures
from asha_ray.audio.rise import DYNAMIC_RANGE_DB
from asha_ray.values import FloatArray

ONSET_SHIFT = N_FFT // (2 * HOP_LENGTH)
"""Frames by which librosa delays onset strength, for the half window that sees ahead."""


@dataclass(frozen=True)
class Curves:
    """A whole track on the 60 Hz grid, as measured: nothing is normalised yet.

    Attributes:
        duration_s: seconds of sound, exactly.
        onset_strength: `[g]` dB, librosa's with a median over mel bands.
        flux: `[g, 3]` mean increase of loudness in low, middle and high bands, shifted likewise.
        rms: `[g]` root mean square level.
        bands: `[g, 3]` root mean square magnitude of low, middle and high bins.
        chroma: `[g, 12]` pitch classes from C, each frame's maximum 1 or all 0.
        centroid: `[g]` Hz.
        timbre: `[s, 20]` mel cepstrum of each second.
        steadiness: `[s, 2]` how steady each second's partials are, in -1..1.
        num_replaced: samples that were damaged and count as silence.
    """

    duration_s: Fraction
    onset_strength: FloatArray
    flux: FloatArray
    rms: FloatArray
    bands: FloatArray
    chroma: FloatArray
    centroid: FloatArray
    timbre: FloatArray
    steadiness: FloatArray
    num_replaced: int


def merge_blocks(blocks: Iterable[BlockFeatures], sample_rate: int) -> Curves:
    """Merge the blocks of one track.

    Args:
        blocks: all of them, in any order.
        sample_rate: of the source, in Hz.
    """
    parts = sorted(blocks, key=lambda part: part.first_frame)
    floor_db = max(part.loudest_db for part in parts) - DYNAMIC_RANGE_DB
    rise = np.concatenate([part.rise.above_floor(floor_db) for part in parts])

    def joined(name: str) -> FloatArray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Curves(
        duration_s=Fraction(parts[-1].source_samples, sample_rate),
        onset_strength=_delayed(rise),
        flux=_delayed(joined("flux")),
        rms=joined("rms"),
        bands=joined("bands"),
        chroma=joined("chroma"),
        centroid=joined("centroid"),
        timbre=joined("timbre"),
        steadiness=joined("steadiness"),
        num_replaced=parts[-1].num_replaced,
    )


def _delayed(curve: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros_like(curve[:ONSET_SHIFT]), curve[:-ONSET_SHIFT]])
