"""Envelopes, to the letter of DESIGN section 5, against a loop that knows nothing of the code."""

from fractions import Fraction

import numpy as np
import pytest

from asha_ray.audio.envelopes import exponential_decay, linear_decay

RATES = [Fraction(60), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(120)]


@pytest.fixture(scope="module")
def onset():
    rng = np.random.default_rng(3)
    return rng.uniform(0, 1, 400).astype(np.float32)


@pytest.fixture(scope="module")
def beats():
    return np.array([3, 4, 30, 61, 62, 63, 120, 300, 399])


def _loop_linear(onset, beats, fps, decay_time, proportional):
    """The value becomes the onset strength at a beat, and loses a fixed amount each frame."""
    value, step, result = 0.0, 0.0, []
    for frame, strength in enumerate(onset.tolist()):
        if frame in beats:
            value = strength
            step = (strength if proportional else 1.0) / (decay_time * float(fps))
        else:
            value = max(0.0, value - step)
        result.append(value)
    return result


def _loop_exponential(onset, beats, fps, rate):
    value, keep, result = 0.0, (1 - rate) ** (60 / float(fps)), []
    for frame, strength in enumerate(onset.tolist()):
        if frame in beats:
            value = strength
        elif value < 0.005:
            value = 0.0
        else:
            value *= keep
        result.append(value)
    return result


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("shape", ["constant", "proportional"])
def test_linear_decay_is_the_articles(onset, beats, fps, shape):
    at = set(beats.tolist())
    for decay_time in (0.25, 0.01, 3.0):
        found = linear_decay(onset, beats, fps, decay_time=decay_time, shape=shape)
        expected = _loop_linear(onset, at, fps, decay_time, shape == "proportional")
        np.testing.assert_allclose(found, expected, 0, 1e-6, err_msg=f"{decay_time = }")
        assert found.dtype == np.float32


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_exponential_decay_is_the_articles(onset, beats, fps):
    for decay_rate in (0.25, 0.01, 0.9):
        found = exponential_decay(onset, beats, fps, decay_rate=decay_rate)
        expected = _loop_exponential(onset, set(beats.tolist()), fps, decay_rate)
        np.testing.assert_allclose(found, expected, 0, 1e-6, err_msg=f"{decay_rate = }")
        assert found.dtype == np.float32


def test_the_articles_own_numbers():
    """At 60 fps, from 1: a fifteenth less each frame, or three quarters of the one before."""
    onset = np.ones(40, np.float32)
    fps = Fraction(60)
    linear = linear_decay(onset, np.array([0]), fps)
    exponential = exponential_decay(onset, np.array([0]), fps)
    np.testing.assert_allclose(linear[:4], [1, 14 / 15, 13 / 15, 12 / 15], atol=1e-6)
    assert linear[14] > 0
    assert linear[16] == 0
    np.testing.assert_allclose(exponential[:4], [1, 0.75, 0.5625, 0.421875], atol=1e-6)
    last = np.flatnonzero(exponential)[-1]
    assert exponential[last] < 0.005 <= exponential[last - 1]
    assert not exponential[last + 1 :].any()


def test_constant_slope_is_the_same_for_weak_beats_and_proportional_is_not():
    onset = np.full(20, 0.5, np.float32)
    constant = linear_decay(onset, np.array([0]), Fraction(60), shape="constant")
    proportional = linear_decay(onset, np.array([0]), Fraction(60), shape="proportional")
    assert constant[1] == pytest.approx(0.5 - 1 / 15)
    assert proportional[1] == pytest.approx(0.5 - 0.5 / 15)
    assert np.flatnonzero(constant)[-1] == 7
    assert np.flatnonzero(proportional > 1e-6)[-1] == 14


def test_a_beat_that_is_weaker_than_what_rings_still_replaces_it():
    onset = np.array([1.0, 0.1, 0.0], np.float32)
    for decay in (linear_decay, exponential_decay):
        assert decay(onset, np.array([0, 1]), Fraction(60))[1] == np.float32(0.1)


def test_the_same_speed_in_seconds_at_every_rate():
    """The same music looks the same at 24 and at 60 fps."""
    at_60 = exponential_decay(np.ones(121, np.float32), np.array([0]), Fraction(60))
    at_24 = exponential_decay(np.ones(49, np.float32), np.array([0]), Fraction(24))
    np.testing.assert_allclose(at_24[:7:2], at_60[:16:5], rtol=1e-5)


@pytest.mark.parametrize("decay", [linear_decay, exponential_decay])
@pytest.mark.parametrize("num_frames", [0, 1, 10])
def test_without_beats_there_is_nothing(decay, num_frames):
    found = decay(np.ones(num_frames, np.float32), np.zeros(0, np.int64), Fraction(60))
    assert found.tolist() == [0] * num_frames


@pytest.mark.parametrize("decay", [linear_decay, exponential_decay])
def test_nothing_happens_before_the_first_beat_nor_outside_0_to_1(decay, onset, beats):
    found = decay(onset, beats, Fraction(30000, 1001))
    assert not found[: beats[0]].any()
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found[beats], onset[beats])
