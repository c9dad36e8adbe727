"""The article's motion: a tour of the keyframes that leaps ahead on each beat.

At time t, with one keyframe every `gap` seconds, `i = floor(t / gap)` and `u = t / gap - i`:

    z = K[i] + (K[i + 1] - K[i]) * u * (envelope / min_factor + 1)

Known faults, kept for fidelity: a beat just after a keyframe moves nothing, one just before it
snaps.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from asha_ray.errors import ModelError
from asha_ray.values import FloatArray


@dataclass(frozen=True)
class SeedPath:
    """The article's latent path, computed where it is asked for.

    Attributes:
        keyframes: `[num_keyframes, L]` latents that are visited in order, wrapping.
        envelope: `[n]` beat envelope in 0..1.
        fps: frames per second of the envelope.
        first_keyframe: where the tour starts.
        keyframe_gap: seconds from one keyframe to the next, exact.
        min_factor: the envelope is divided by it; smaller leaps further.
    """

    keyframes: FloatArray
    envelope: FloatArray
    fps: Fraction
    first_keyframe: int = 0
    keyframe_gap: Fraction = Fraction(1)
    min_factor: float = 1.0

    @property
    def num_frames(self) -> int:
        """Frames of the whole track."""
        return len(self.envelope)

    @property
    def latent_dim(self) -> int:
        """Latent dimensions L."""
        return int(self.keyframes.shape[1])

    def latents(self, start: int, stop: int) -> FloatArray:
        """The latents `[stop - start, L]` float32 of frames `start` up to `stop`, exclusive."""
        # A frame lies at frame / (fps * gap) keyframes; in integers a boundary is never missed.
        frames_per_gap = self.fps * self.keyframe_gap
        scaled = np.arange(start, stop, dtype=np.int64) * frames_per_gap.denominator
        step, rest = np.divmod(scaled, frames_per_gap.numerator)
        u = rest / frames_per_gap.numerator
        travel = u * (self.envelope[start:stop].astype(np.float64) / self.min_factor + 1)
        here = self.keyframes[(self.first_keyframe + step) % len(self.keyframes)]
        there = self.keyframes[(self.first_keyframe + step + 1) % len(self.keyframes)]
        return np.asarray(here + (there - here) * travel[:, None], np.float32)


def seed_path(
    keyframes: FloatArray,
    envelope: FloatArray,
    fps: Fraction,
    *,
    seed: int = 0,
    keyframe_gap: float = 1.0,
    min_factor: float = 1.0,
) -> SeedPath:
    """The article's path through `keyframes`, from one of them that `seed` draws.

    Args:
        keyframes: `[num_keyframes, L]`, at least one.
        envelope: `[n]` the linear or the exponential decay of the beats.
        fps: frames per second of the envelope.
        seed: draws the first keyframe.
        keyframe_gap: seconds from one keyframe to the next.
        min_factor: the envelope is divided by it.

    Raises:
        ModelError: if there are no keyframes.
    """
    if len(keyframes) == 0:
        raise ModelError(
            "making a path: the model has no keyframes (it was trained on no images); "
            "give some with --keyframes"
        )
    return SeedPath(
        keyframes=keyframes,
        envelope=envelope,
        fps=fps,
        first_keyframe=int(np.random.default_rng(seed).integers(len(keyframes))),
        # Nanoseconds keep the integers of `latents` within 64 bits, however long the show.
        keyframe_gap=Fraction(str(keyframe_gap)).limit_denominator(10**9),
        min_factor=min_factor,
    )
