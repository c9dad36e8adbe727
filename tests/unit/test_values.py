"""Values: frame counts and chunks are exact, whatever the rate."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from asha_ray.values import AudioClip, Features, num_frames_of, plan_chunks

RATES = [Fraction(24), Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(60)]


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("frames", [1, 7, 1001, 648_000])
def test_an_exact_multiple_of_a_frame_gets_no_extra_frame(fps, frames):
    """A float `ceil(duration * fps)` would give one frame too many."""
    assert num_frames_of(frames / fps, fps) == frames
    assert num_frames_of(frames / fps + Fraction(1, 96_000), fps) == frames + 1
    assert num_frames_of(frames / fps - Fraction(1, 96_000), fps) == frames


def test_duration_is_the_exact_number_of_samples():
    clip = AudioClip(np.zeros(44_101, np.float32), 44_100)
    assert clip.duration_s == Fraction(44_101, 44_100)
    assert ceil(clip.duration_s * 60) == 61


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_every_frame_is_in_exactly_one_chunk(fps):
    for chunk_s in (0.001, 0.1, 0.7, 10.0, 1e6):
        for start, num_frames in ((0, 1), (0, 601), (17, 600)):
            case = f"{num_frames} frames from {start} in chunks of {chunk_s} s"
            chunks = plan_chunks(start, num_frames, fps, chunk_s)
            frames = [frame for chunk in chunks for frame in range(chunk.start, chunk.stop)]
            assert frames == list(range(start, start + num_frames)), case
            assert [chunk.index for chunk in chunks] == list(range(len(chunks))), case
            lengths = {chunk.num_frames for chunk in chunks[:-1]}
            assert lengths <= {max(1, round(Fraction(str(chunk_s)) * fps))}, case


def test_no_frames_are_no_chunks():
    assert plan_chunks(5, 0, Fraction(60), 1.0) == ()


def test_onset_info_is_the_articles_array():
    """Consumers of the features file read frame, seconds and strength from its columns."""
    strength = np.array([0.0, 1.0, 0.5], np.float32)
    none = np.zeros(3, np.float32)
    features = Features(
        fps=Fraction(30000, 1001),
        duration_s=0.1,
        onset_strength=strength,
        beat_frames=np.array([1]),
        beat_times=np.array([0.033]),
        tempo=120.0,
        decay_linear=none,
        decay_exponential=none,
        rms=none,
        bands=np.zeros((3, 3), np.float32),
    )
    assert features.num_frames == 3
    expected = [[0, 0, 0], [1, 1001 / 30000, 1], [2, 2002 / 30000, 0.5]]
    np.testing.assert_allclose(features.onset_info, expected, rtol=0, atol=1e-12)
