"""Onset strength before the loudest moment of a track is known.

librosa raises mel levels more than 80 dB below the track's loudest to there, and onset strength is
the median over mel bands of how much each rose since the frame before. In most frames that floor
changes nothing; of the others, what is needed for any floor is kept.

Shapes: m frames, q quiet frames, 128 mel bands.
"""

from dataclasses import dataclass

import numpy as np

from asha_ray.values import ByteArray, FloatArray, IndexArray

NUM_MEL = 128
MIDDLE = (NUM_MEL // 2 - 1, NUM_MEL // 2)
"""Ranks whose mean is the median."""

DYNAMIC_RANGE_DB = 80.0
"""librosa's `power_to_db`: mel levels this far below the track's loudest are raised to there."""

LOUD_MEL_DB = 47.0
"""No mel band of a sine at twice full scale is louder, so no track's floor is above this - 80.
(Of louder floating-point files, blocks more than 20 dB below the loudest may be off.)"""

ANY_RISE_DB = 1000.0


@dataclass(frozen=True)
class Rise:
    """How much a block's frames rise, for any floor.

    Attributes:
        lowest: `[m]` dB, for the lowest floor possible: 80 dB below this block's own loudest.
        quiet_frames: `[q]` frames whose rise depends on the floor.
        kept: `[q, 16]` bits: bands whose levels decide it.
        above: `[q, 16]` bits: bands that rise more than the median, whatever the floor.
        now: levels in dB of the bands kept, frame after frame.
        before: their levels one frame earlier.
    """

    lowest: FloatArray
    quiet_frames: IndexArray
    kept: ByteArray
    above: ByteArray
    now: FloatArray
    before: FloatArray

    def above_floor(self, floor_db: float) -> FloatArray:
        """The rise `[m]` in dB when levels below the floor count as it."""
        kept = np.unpackbits(self.kept, axis=1).astype(np.bool_)
        now, before = np.full((2, *kept.shape), floor_db, np.float32)
        now[np.unpackbits(self.above, axis=1).astype(np.bool_)] += np.float32(ANY_RISE_DB)
        now[kept], before[kept] = self.now, self.before
        rise = self.lowest.copy()
        rise[self.quiet_frames] = _median(_increase(floor_db, now, before))
        return rise


def measure_rise(now: FloatArray, before: FloatArray) -> Rise:
    """How much frames of mel levels rise.

    Args:
        now: `[m, 128]` dB.
        before: `[m, 128]` dB, one frame earlier.
    """
    lowest_db = float(now.max()) - DYNAMIC_RANGE_DB
    highest_db = max(LOUD_MEL_DB - DYNAMIC_RANGE_DB, lowest_db + DYNAMIC_RANGE_DB / 4)
    largest = _increase(lowest_db, now, before)
    lowest = _median(largest)
    # A rise never grows with the floor, so where both ends agree all between do.
    unsure = np.flatnonzero((lowest > 0) & (before < highest_db).any(axis=1))
    least = _increase(highest_db, now[unsure], before[unsure])
    differs = _median(least) != lowest[unsure]
    quiet, least, largest = unsure[differs], least[differs], largest[unsure[differs]]
    # A band's increase lies between these two, so some are never among the middle two.
    above = least > np.partition(largest, MIDDLE[1], axis=1)[:, [MIDDLE[1]]]
    below = largest < np.partition(least, MIDDLE[0], axis=1)[:, [MIDDLE[0]]]
    kept = ~(above | below | (largest == 0))
    return Rise(
        lowest=lowest,
        quiet_frames=quiet.astype(np.int64),
        kept=np.packbits(kept, axis=1),
        above=np.packbits(above, axis=1),
        now=now[quiet][kept],
        before=before[quiet][kept],
    )


def _increase(floor_db: float, now: FloatArray, before: FloatArray) -> FloatArray:
    increase = np.maximum(now, floor_db) - np.maximum(before, floor_db)
    return np.asarray(np.maximum(increase, np.float32(0)))


def _median(increase: FloatArray) -> FloatArray:
    """Median `[m]` over bands of increases `[m, 128]` that are at least 0."""
    median = np.zeros(len(increase), np.float32)
    # Where fewer than half of the bands rise, it is 0.
    some = np.count_nonzero(increase, axis=1) >= NUM_MEL // 2
    ordered = np.partition(increase[some], MIDDLE, axis=1)
    median[some] = ordered[:, MIDDLE[0] : MIDDLE[1] + 1].mean(axis=1)
    return median
