"""Beats and tracks of mixes that are longer than what unit tests have time for."""

from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.beats import track_changing_beats
from asha_ray.audio.blocks import iter_blocks
from asha_ray.audio.features import analyze_stream
from asha_ray.audio.measure import measure_block
from asha_ray.audio.merge import merge_blocks
from asha_ray.audio.parallel import map_in_threads
from asha_ray.audio.structure import find_tracks
from tests.mix import f_measure, mix
from tests.unit.audio.tracks import curves, faded, track

pytestmark = pytest.mark.slow


def test_beats_of_a_mix_from_90_to_174_bpm():
    """The issue's target, on a shorter mix: F at 70 ms of 0.9 at least."""
    pcm, beats = mix(480, 90, 174)
    blocks = map_in_threads(2)(measure_block, iter_blocks(pcm))
    _, found = track_changing_beats(merge_blocks(blocks, pcm.sample_rate).flux)
    assert f_measure(found / 60, beats, 0.07) >= 0.9


def test_above_20_minutes_beats_follow_the_mix_and_below_librosas_tracker_is_kept():
    pcm, beats = mix(21 * 60, 100, 140)
    features = analyze_stream(pcm, Fraction(30), map=map_in_threads(2))
    assert f_measure(features.beat_times, beats, 0.07) >= 0.9


@pytest.mark.parametrize("fade_s", [0.0, 4.0], ids=["cut", "faded"])
def test_the_tracks_of_a_mix_are_found(fade_s):
    """The issue's target, on tracks of the usual length: F at 5 s of 0.7 at least."""
    lengths = [110, 135, 95, 150, 120]
    mix = np.concatenate([faded(track(s, seed), fade_s) for seed, s in enumerate(lengths)])
    assert f_measure(find_tracks(curves(mix)), np.cumsum(lengths)[:-1].astype(float), 5.0) >= 0.7
