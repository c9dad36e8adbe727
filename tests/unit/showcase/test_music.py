"""The demo's track: its beats are known, and are found again by the analysis."""

from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.features import AnalysisSettings, analyze_clip, measure
from asha_ray.audio.grid_features import features_at
from asha_ray.showcase.music import compose
from asha_ray.values import AudioClip

TOLERANCE_S = 0.07


def _f_measure(found, true):
    """Harmonic mean of precision and recall; each beat matches one other within 70 ms at most."""
    free = sorted(found)
    hits = 0
    for time in sorted(true):
        near = [other for other in free if abs(other - time) <= TOLERANCE_S]
        if near:
            free.remove(min(near, key=lambda other: abs(other - time)))
            hits += 1
    return 2 * hits / (len(found) + len(true))


def test_the_matcher_counts_misses_and_surplus():
    assert _f_measure([1, 2, 3], [1, 2, 3]) == 1
    assert _f_measure([1.05, 2, 3, 3.02], [1, 2, 3]) == pytest.approx(6 / 7)
    assert _f_measure([1.1, 2], [1, 2, 3]) == pytest.approx(2 / 5)


@pytest.fixture(scope="module")
def track():
    return compose()


@pytest.fixture(scope="module")
def measured(track):
    return measure(AudioClip(track.samples.mean(axis=1, dtype=np.float32), track.sample_rate))


@pytest.mark.parametrize("fps", [Fraction(60), Fraction(24)], ids=str)
def test_the_default_tracks_beats_are_found(track, measured, fps):
    """The demo's video would not move with its music."""
    features = features_at(measured, fps, AnalysisSettings())
    assert _f_measure(features.beat_frames / float(fps), track.beat_times) >= 0.95
    assert _f_measure(features.beat_times, track.beat_times) >= 0.95
    assert features.tempo == pytest.approx(120, abs=3)


@pytest.mark.parametrize(("tempo", "seed"), [(100, 1), (132, 2)])
def test_other_tracks_beats_are_found_too(tempo, seed):
    track = compose(9.0, tempo, seed)
    clip = AudioClip(track.samples.mean(axis=1, dtype=np.float32), track.sample_rate)
    features = analyze_clip(clip, Fraction(60))
    assert _f_measure(features.beat_times, track.beat_times) >= 0.9


def test_the_track_is_whole_and_never_clips(track):
    assert track.samples.shape == (24 * 44_100, 2)
    assert track.samples.dtype == np.float32
    assert np.abs(track.samples).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    assert np.isfinite(track.samples).all()
    assert np.abs(track.samples[-50:]).max() < 0.01, "it ends with a click"
    assert track.section_times[0] == 0
    assert (np.diff(track.section_times) > 0).all()
    np.testing.assert_allclose(np.diff(track.beat_times), 0.5, atol=1e-9)


def test_the_same_seed_composes_the_same_track():
    one, again, other = (compose(4.0, 120, seed) for seed in (3, 3, 4))
    assert one.samples.tobytes() == again.samples.tobytes()
    assert one.samples.tobytes() != other.samples.tobytes()


@pytest.mark.parametrize(("duration_s", "tempo"), [(3.9, 120), (10, 59), (10, 201)])
def test_what_cannot_be_composed_is_refused(duration_s, tempo):
    with pytest.raises(ValueError, match=r"need duration_s >= 4 and tempo_bpm in 60\.\.200"):
        compose(duration_s, tempo)
