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
JOINED = ("flux", "rms", "bands", "chroma", "centroid", "timbre", "steadiness")
"""What is measured in blocks as it is in the whole."""


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
    return merge_in_order(parts, max(part.loudest_db for part in parts), sample_rate)


def merge_in_order(blocks: Iterable[BlockFeatures], loudest_db: float, sample_rate: int) -> Curves:
    """Merge blocks that are read from somewhere, holding no more of them than the result.

    Args:
        blocks: all of a track, in order.
        loudest_db: of the loudest.
        sample_rate: of the source, in Hz.
    """
    rises: list[FloatArray] = []
    curves: dict[str, list[FloatArray]] = {name: [] for name in JOINED}
    for block in blocks:
        rises.append(block.rise.above_floor(loudest_db - DYNAMIC_RANGE_DB))
        for name, parts in curves.items():
            parts.append(getattr(block, name))
    joined = {name: np.concatenate(curves.pop(name)) for name in JOINED}
    return Curves(
        duration_s=Fraction(block.source_samples, sample_rate),
        onset_strength=_delayed(np.concatenate(rises)),
        flux=_delayed(joined.pop("flux")),
        num_replaced=block.num_replaced,
        **joined,
    )


def _delayed(curve: FloatArray) -> FloatArray:
    return np.concatenate([np.zeros_like(curve[:ONSET_SHIFT]), curve[:-ONSET_SHIFT]])
