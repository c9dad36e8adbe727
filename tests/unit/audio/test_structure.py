"""Sections and tracks: where pictures may change for good, because the music does."""

from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.features import analyze_clip
from asha_ray.audio.structure import find_sections, find_tracks
from asha_ray.values import AudioClip
from tests.mix import f_measure
from tests.unit.audio.tracks import RATE, curves, faded, track


@pytest.mark.parametrize(
    ("lengths", "fade_s"),
    [
        pytest.param([70, 90, 80], 0.0, id="cut"),
        pytest.param([45, 60, 40, 70, 50], 4.0, id="faded"),
    ],
)
def test_the_tracks_of_a_mix_are_found(lengths, fade_s):
    """So short, the faded ones would be missed if a drop of the level, or a mean length, counted
    for nothing; and the ends of both would be tracks if another track were cheap.
    """
    mix = np.concatenate([faded(track(s, seed), fade_s) for seed, s in enumerate(lengths)])
    found = find_tracks(curves(mix))
    assert f_measure(found, np.cumsum(lengths)[:-1].astype(float), 5.0) >= 0.9


def test_one_track_is_one_track():
    assert len(find_tracks(curves(track(80, 2)))) == 0


def test_a_verse_and_a_chorus_are_sections():
    """Same music, then other chords and colour, then the first again: two boundaries."""
    verse, chorus = track(30, 1), track(26, 2)
    found = find_sections(curves(np.concatenate([verse, chorus, verse])))
    assert f_measure(found, np.array([30.0, 56.0]), 2.0) >= 0.6
    assert min(abs(found - 30)) <= 2
    assert min(abs(found - 56)) <= 2


@pytest.mark.parametrize("seconds", [1, 3, 20])
def test_what_is_too_short_has_no_parts(seconds):
    features = analyze_clip(AudioClip(track(seconds, 1).astype(np.float32), RATE), Fraction(30))
    assert len(features.section_times) == len(features.track_times) == 0


def test_silence_has_no_parts():
    silence = curves(np.zeros(80 * RATE))
    assert len(find_sections(silence)) == len(find_tracks(silence)) == 0
