"""Beats: librosa's own for a track, and a tracker that follows where a mix's tempo goes."""

import warnings

import numpy as np
import pytest

from asha_ray.audio import beats as module
from asha_ray.audio.beats import local_tempo, track_beats, track_changing_beats
from tests.mix import f_measure


def _onsets(bpm_of_second, seconds):
    """Onset curve `[g]` with a pulse at every beat, decaying over three frames, and the beats."""
    beats, time_s = [], 0.3
    while time_s < seconds - 0.5:
        beats.append(time_s)
        time_s += 60 / bpm_of_second(time_s)
    curve = np.zeros(seconds * 60)
    for number, beat in enumerate(beats):
        frame = round(beat * 60)
        curve[frame : frame + 3] += np.array([1, 0.5, 0.2]) * (1.0 if number % 2 else 0.8)
    return curve, np.array(beats)


@pytest.mark.parametrize(
    ("bpm", "seconds", "part_s"),
    [
        *((bpm, seconds, 10) for bpm in (72, 97, 128, 160) for seconds in (7, 11, 25)),
        (128, 61, module.CHUNK_FRAMES // 60),
    ],
)
def test_a_tracks_beats_are_librosas(monkeypatch, bpm, seconds, part_s):
    """The tempogram is averaged in parts to save memory; tempo and beats must not move by it."""
    from asha_ray.audio.tracker import beat_track

    monkeypatch.setattr(module, "CHUNK_FRAMES", 60 * part_s)
    curve, _ = _onsets(lambda _: bpm, seconds)
    curve += 0.05 * np.random.default_rng(1).random(len(curve))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tempo, beats = beat_track(onset_envelope=curve, sr=30_720, hop_length=512)
    found_tempo, found = track_beats(curve)
    assert found_tempo == pytest.approx(float(np.atleast_1d(tempo)[0]))
    np.testing.assert_array_equal(found, beats)


@pytest.mark.parametrize(
    "tracker", [track_beats, lambda curve: track_changing_beats(curve[:, None].repeat(3, 1))]
)
def test_silence_has_no_beats(tracker):
    tempo, beats = tracker(np.zeros(6000, np.float32))
    assert tempo == 0
    assert len(beats) == 0


@pytest.mark.parametrize(
    "bpm_of_second",
    [
        pytest.param(lambda t: 90 * (174 / 90) ** (t / 300), id="rising"),
        pytest.param(lambda t: 170 - t / 4, id="falling"),
        pytest.param(lambda t: 124 if t < 150 else 100, id="cut"),
        pytest.param(lambda t: 125, id="even"),
    ],
)
def test_beats_follow_a_tempo_that_moves(bpm_of_second):
    """With one tempo for a whole mix, beats fall anywhere for most of it."""
    curve, beats = _onsets(bpm_of_second, 300)
    flux = np.stack([curve, curve, curve], axis=1).astype(np.float32)
    _, found = track_changing_beats(flux)
    assert f_measure(found / 60, beats, 0.07) > 0.95


def test_local_tempo_is_that_of_each_second():
    curve, _ = _onsets(lambda t: 124 if t < 100 else 100, 200)
    bpm = local_tempo(curve - curve.mean())
    assert len(bpm) == 200
    np.testing.assert_allclose(bpm[10:90], 124, rtol=0.02)
    np.testing.assert_allclose(bpm[110:190], 100, rtol=0.02)
