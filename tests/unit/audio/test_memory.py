"""What follows from a whole track takes little for each of its seconds."""

import tracemalloc
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.beats import _novelty
from asha_ray.audio.merge import Curves
from asha_ray.audio.normalise import to_unit
from asha_ray.audio.speech import find_speech
from asha_ray.audio.structure import _sound_of_seconds, _stretches

FRAME_BYTES = 60 * 4
"""Of one curve's second."""


def curves(seconds: int) -> Curves:
    rng = np.random.default_rng(1)

    def noise(*shape: int) -> np.ndarray:
        return rng.random(shape, np.float32)

    frames = 60 * seconds
    return Curves(
        duration_s=Fraction(seconds),
        onset_strength=noise(frames),
        flux=noise(frames, 3),
        rms=noise(frames),
        bands=noise(frames, 3),
        chroma=noise(frames, 12),
        centroid=1000 * noise(frames),
        timbre=noise(seconds, 20),
        steadiness=noise(seconds, 2),
        num_replaced=0,
    )


def stretches(given: Curves) -> object:
    sound = _sound_of_seconds(given)
    return _stretches(sound, np.arange(0, len(sound) + 1, 20))


def peak_bytes(function: Callable[[Curves], object], seconds: int) -> int:
    given = curves(seconds)
    tracemalloc.start()
    function(given)
    result = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result


@pytest.mark.parametrize(
    ("function", "most"),
    [
        pytest.param(find_speech, 16 * FRAME_BYTES, id="speech"),
        pytest.param(stretches, 16 * FRAME_BYTES, id="tracks"),
        pytest.param(lambda c: _novelty(c.flux), 24 * FRAME_BYTES, id="novelty"),
        pytest.param(lambda c: to_unit(c.bands, "rolling"), 18 * FRAME_BYTES, id="rolling"),
    ],
)
def test_a_second_more_takes_a_few_curves(function, most):
    """A show of three hours has ten thousand; windows of all at once were 25 kB for each."""
    short, long = 700, 1400
    peak_bytes(function, 60)
    growth = peak_bytes(function, long) - peak_bytes(function, short)
    assert growth / (long - short) < most
