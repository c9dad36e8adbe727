"""Sections and tracks: where pictures may change for good, because the music does."""

import functools
from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.blocks import iter_blocks, stream_of_clip
from asha_ray.audio.features import analyze_clip
from asha_ray.audio.measure import measure_block
from asha_ray.audio.merge import merge_blocks
from asha_ray.audio.structure import find_sections, find_tracks
from asha_ray.values import AudioClip
from tests.mix import f_measure

RATE = 16_000


def _overtones(phase, count, tilt):
    """The sum over k of sin(k * phase) / k ** tilt; one sine from the two before it."""
    twice_cos, before, sine = 2 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = sine.copy()
    for k in range(2, count + 1):
        before, sine = sine, twice_cos * sine - before
        total += sine * np.float32(k**-tilt)
    return total


@functools.cache
def _track(seconds, seed):
    """Two alternating chords of one set of overtones, and noise of one colour."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(seconds * RATE) / RATE
    root, tilt = 80 * 2 ** rng.uniform(0, 1.5), rng.uniform(0.5, 2.5)
    step = np.array([1, 2 ** (rng.integers(3, 8) / 12)])[(time_s // 2).astype(int) % 2]
    turns = (root * step * time_s) % 1
    sound = _overtones((2 * np.pi * turns).astype(np.float32), rng.integers(4, 24), tilt)
    noise = rng.standard_normal(len(time_s), np.float32)
    if rng.random() < 0.5:
        noise = np.cumsum(noise)
    noise = np.diff(noise, prepend=0) * np.exp(-((time_s * rng.uniform(1, 3)) % 1) * 9)
    sound = 0.2 * sound / sound.std() + rng.uniform(0.02, 0.2) * noise / max(noise.std(), 1e-6)
    sound *= 0.7 + 0.3 * ((time_s // 8) % 2)
    sound.flags.writeable = False
    return sound


def _faded(sound, fade_s):
    """Its last seconds ever softer."""
    left_s = np.arange(len(sound), 0, -1) / RATE
    return sound * np.clip(left_s / fade_s, 0, 1) if fade_s else sound


def _curves(samples):
    pcm = stream_of_clip(AudioClip(samples.astype(np.float32), RATE))
    return merge_blocks(map(measure_block, iter_blocks(pcm)), RATE)


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
    mix = np.concatenate([_faded(_track(s, seed), fade_s) for seed, s in enumerate(lengths)])
    found = find_tracks(_curves(mix))
    assert f_measure(found, np.cumsum(lengths)[:-1].astype(float), 5.0) >= 0.9


def test_one_track_is_one_track():
    assert len(find_tracks(_curves(_track(80, 2)))) == 0


def test_a_verse_and_a_chorus_are_sections():
    """Same music, then other chords and colour, then the first again: two boundaries."""
    verse, chorus = _track(30, 1), _track(26, 2)
    found = find_sections(_curves(np.concatenate([verse, chorus, verse])))
    assert f_measure(found, np.array([30.0, 56.0]), 2.0) >= 0.6
    assert min(abs(found - 30)) <= 2
    assert min(abs(found - 56)) <= 2


@pytest.mark.parametrize("seconds", [1, 3, 20])
def test_what_is_too_short_has_no_parts(seconds):
    features = analyze_clip(AudioClip(_track(seconds, 1).astype(np.float32), RATE), Fraction(30))
    assert len(features.section_times) == len(features.track_times) == 0


def test_silence_has_no_parts():
    curves = _curves(np.zeros(80 * RATE))
    assert len(find_sections(curves)) == len(find_tracks(curves)) == 0
