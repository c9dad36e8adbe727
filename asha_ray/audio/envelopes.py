"""Beat envelopes: a value that jumps at each beat and decays until the next.

Shapes: n frames, k beats. Source: the article's linear and exponential decay of beats.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from asha_ray.values import FloatArray, IndexArray, TimeArray

REFERENCE_FPS = 60
SILENCE_FLOOR = 0.005
"""Below this, an exponential envelope falls to exactly 0."""


def linear_decay(
    onset_strength: FloatArray,
    beat_frames: IndexArray,
    fps: Fraction,
    *,
    decay_time: float = 0.25,
    shape: str = "constant",
) -> FloatArray:
    """A beat's strength minus a fixed amount each frame, never below 0.

    Args:
        onset_strength: `[n]` in 0..1.
        beat_frames: `[k]` ascending frame numbers below n.
        fps: frames per second.
        decay_time: seconds from 1 to 0.
        shape: `constant`, the same slope for strong and weak beats (the article's words), or
            `proportional`, a slope that brings every beat to 0 in `decay_time` (its code).

    Returns:
        `[n]` in 0..1, 0 before the first beat.
    """
    step = 1 / (decay_time * float(fps))

    def decay(strength: float, age: TimeArray) -> TimeArray:
        slope = step * strength if shape == "proportional" else step
        return np.asarray(np.maximum(strength - slope * age, 0))

    return _between_beats(onset_strength, beat_frames, decay)


def exponential_decay(
    onset_strength: FloatArray,
    beat_frames: IndexArray,
    fps: Fraction,
    *,
    decay_rate: float = 0.25,
) -> FloatArray:
    """A beat's strength times a constant each frame, cut to 0 once it was below 0.005.

    Args:
        onset_strength: `[n]` in 0..1.
        beat_frames: `[k]` ascending frame numbers below n.
        fps: frames per second.
        decay_rate: what a frame loses of its value at 60 frames per second; at other rates the
            speed in seconds is the same.

    Returns:
        `[n]` in 0..1, 0 before the first beat.
    """
    keep = (1 - decay_rate) ** float(REFERENCE_FPS / fps)

    def decay(strength: float, age: TimeArray) -> TimeArray:
        values = strength * keep**age
        ended = np.concatenate([[False], values[:-1] < SILENCE_FLOOR])
        return np.where(ended, 0, values)

    return _between_beats(onset_strength, beat_frames, decay)


def _between_beats(
    onset_strength: FloatArray,
    beat_frames: IndexArray,
    decay: Callable[[float, TimeArray], TimeArray],
) -> FloatArray:
    envelope = np.zeros(len(onset_strength), np.float32)
    for start, stop in _spans(beat_frames, len(onset_strength)):
        age = np.arange(stop - start, dtype=np.float64)
        envelope[start:stop] = decay(float(onset_strength[start]), age)
    return envelope


def _spans(beat_frames: IndexArray, num_frames: int) -> Iterator[tuple[int, int]]:
    ends = [*beat_frames[1:], num_frames]
    return ((int(start), int(stop)) for start, stop in zip(beat_frames, ends, strict=False))
