"""Sound on its way into a separator and back: nothing lost, nothing shifted, nothing added."""

import numpy as np
import pytest

from asha_ray.audio.stems.pcm import aligned, at_rate, resampled, to_stereo
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import snr_db, song, stream


def through(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """A sound sent to 44.1 kHz and back."""
    blocks = list(at_rate(stream(samples, sample_rate), 44_100, lambda blocks: blocks, 2))
    return np.concatenate(blocks) if blocks else np.zeros((0, 2), np.float32)


def test_one_channel_goes_to_both_sides():
    block = song(0.1)[:, :1]
    np.testing.assert_array_equal(to_stereo(block), np.repeat(block, 2, axis=1))


@pytest.mark.parametrize("num_channels", [3, 4, 5, 6, 7, 8, 9, 64])
def test_a_mix_of_many_channels_never_clips_and_loses_no_side(num_channels):
    block = np.ones((4, num_channels), np.float32)
    np.testing.assert_allclose(to_stereo(block), 1, rtol=1e-6)
    left = np.zeros((1, num_channels), np.float32)
    left[0, 0] = 1
    assert to_stereo(left)[0, 0] > 0
    assert to_stereo(left)[0, 1] == 0


def test_of_surround_the_effects_channel_is_left_out():
    """Its rumble is not in the stereo mix that networks are trained on."""
    block = np.zeros((1, 6), np.float32)
    block[0, 3] = 1
    np.testing.assert_array_equal(to_stereo(block), 0)


def test_damage_becomes_silence():
    """One NaN would spread over a whole segment of a network."""
    block = np.float32([[np.nan, 0.5], [np.inf, -np.inf], [1e9, 0.25]])
    np.testing.assert_array_equal(to_stereo(block), np.float32([[0, 0.5], [0, 0], [0, 0.25]]))


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 96_000, 88_200])
def test_there_and_back_changes_nothing_that_is_heard(sample_rate):
    time_s = np.arange(2 * sample_rate)[:, None] / sample_rate
    samples = (0.5 * np.sin(2 * np.pi * np.float64([[440, 3000]]) * time_s)).astype(np.float32)
    back = through(samples, sample_rate)
    assert back.shape == samples.shape
    assert snr_db(samples[1000:-1000], back[1000:-1000]) > 80


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 44_100, 47_999, 48_000, 192_000])
@pytest.mark.parametrize("length", [1, 2, 3, 100, 9_999, 65_537])
def test_the_length_is_the_inputs(sample_rate, length):
    """A sample too few and stems no longer fit the mix."""
    assert through(song(1.5)[:length], sample_rate).shape == (length, 2)


def test_no_sound_gives_no_sound():
    assert list(at_rate(PcmStream(48_000, 2, iter([])), 44_100, lambda blocks: blocks, 2)) == []


def test_blocks_do_not_show_in_what_is_resampled():
    samples = song(1.5, 48_000)
    parts = [
        np.concatenate(list(resampled(stream(samples, 48_000, block).blocks, 48_000, 44_100)))
        for block in (777, 1 << 20)
    ]
    assert parts[0].shape == parts[1].shape == (66_150, 2)
    assert snr_db(parts[0], parts[1]) > 120


@pytest.mark.parametrize("rate", [48_000, 8_000, 44_100, 96_000, 47_999])
def test_aligned_samples_are_samples_at_both_rates(rate):
    for sample in (0, 1, 12_345, 3_000_000):
        start = aligned(sample, rate, 44_100)
        assert 0 <= start <= sample < start + rate
        assert start * 44_100 % rate == 0
