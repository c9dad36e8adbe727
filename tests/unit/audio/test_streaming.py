"""Block analysis: a track cut up, in any order and anywhere, gives what the whole gives."""

import pickle
import threading
from fractions import Fraction
from functools import partial

import librosa
import numpy as np
import pytest

from asha_ray.audio import features
from asha_ray.audio.blocks import iter_blocks, stream_of_clip
from asha_ray.audio.features import (
    AnalysisSettings,
    analyze_clip,
    analyze_stream,
    grid_features,
)
from asha_ray.audio.measure import measure_block
from asha_ray.audio.merge import merge_blocks
from asha_ray.audio.normalise import to_unit
from asha_ray.audio.parallel import map_in_threads
from asha_ray.values import AudioClip, PcmStream

RATE = 30_720
BLOCK = 60
"""A block of one second, so that a short clip has many."""


def _music(seconds, sample_rate=RATE, *, quiet_from=None, quiet_by=1e-4):
    """Noise bursts twice a second over two tones; from `quiet_from` seconds on, 80 dB lower."""
    rng = np.random.default_rng(5)
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    bursts = rng.standard_normal(len(time_s)) * np.exp(-((time_s * 2) % 1) * 12)
    tones = np.sin(2 * np.pi * 220 * time_s) + np.sin(2 * np.pi * 1330 * np.sqrt(time_s + 1))
    samples = 0.1 * bursts + 0.1 * tones
    if quiet_from is not None:
        samples[time_s >= quiet_from] *= quiet_by
    return samples.astype(np.float32)


def _curves(samples, block_frames=BLOCK, sample_rate=RATE):
    pcm = stream_of_clip(AudioClip(samples, sample_rate))
    return merge_blocks(map(measure_block, iter_blocks(pcm, block_frames)), sample_rate)


def _librosas_onset(samples):
    return librosa.onset.onset_strength(y=samples, sr=RATE, hop_length=512, aggregate=np.median)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(_music(5.0), id="even"),
        pytest.param(_music(5.0, quiet_from=2.5), id="then-quiet"),
        pytest.param(_music(5.0, quiet_from=0.0)[::-1].copy(), id="all-quiet"),
        pytest.param(_music(5.0, quiet_from=2.0)[::-1].copy(), id="then-loud"),
        pytest.param(_music(5.0, quiet_from=2.0, quiet_by=0.0), id="then-digital-silence"),
        pytest.param(20 * _music(5.0, quiet_from=2.0), id="over-full-scale"),
    ],
)
def test_onset_strength_of_blocks_is_librosas_of_the_whole(samples):
    """The floor under quiet bands hangs on the whole track's loudest moment, in another block."""
    expected = _librosas_onset(samples)
    onset = _curves(samples).onset_strength
    np.testing.assert_allclose(onset, expected, rtol=0, atol=1e-5 * expected.max())


def test_levels_and_pitches_of_blocks_are_librosas_of_the_whole():
    samples = _music(4.3)
    curves = _curves(samples)
    magnitude = np.abs(librosa.stft(samples, n_fft=2048, hop_length=512))
    rms = librosa.feature.rms(y=samples, frame_length=2048, hop_length=512)[0]
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=RATE)[0]
    chroma = librosa.feature.chroma_stft(S=magnitude**2, sr=RATE, tuning=0.0)
    low = magnitude[librosa.fft_frequencies(sr=RATE, n_fft=2048) < 250]
    np.testing.assert_allclose(curves.rms, rms, rtol=0, atol=1e-6)
    np.testing.assert_allclose(curves.centroid, centroid, rtol=1e-5)
    np.testing.assert_allclose(curves.chroma, chroma.T, rtol=0, atol=1e-5)
    np.testing.assert_allclose(curves.bands[:, 0], np.sqrt(np.mean(low**2, axis=0)), rtol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 511, 2048, RATE - 1, RATE, RATE + 1, 2 * RATE + 512])
def test_every_frame_is_in_one_block(num_samples):
    """A frame lost or doubled at a seam would shift all that follows."""
    samples = _music(3.0)[:num_samples]
    expected = _librosas_onset(np.pad(samples, (0, max(0, 2048 - num_samples))))
    curves = _curves(samples)
    assert curves.duration_s == Fraction(num_samples, RATE)
    assert len(curves.onset_strength) == len(curves.rms) == len(expected)
    np.testing.assert_allclose(curves.onset_strength, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_resampling_in_a_stream_is_resampling_of_the_whole(sample_rate):
    samples = _music(3.0, sample_rate)[:-7]
    whole = librosa.resample(samples, orig_sr=sample_rate, target_sr=RATE, res_type="soxr_hq")
    pcm = PcmStream(sample_rate, 1, iter(np.array_split(samples[:, None], 13)))
    blocks = list(iter_blocks(pcm, BLOCK))
    joined = np.concatenate([block.samples[: BLOCK * 512] for block in blocks])
    np.testing.assert_allclose(joined[1536:][: len(whole)], whole[: len(joined) - 1536], atol=1e-6)
    assert blocks[-1].source_samples == len(samples)
    assert blocks[-1].first_frame + blocks[-1].num_frames == 1 + len(whole) // 512


def test_blocks_may_come_back_in_any_order():
    """A cluster finishes them as it likes, and one whose worker died last of all."""
    samples = _music(4.0)
    parts = [
        measure_block(block)
        for block in iter_blocks(stream_of_clip(AudioClip(samples, RATE)), BLOCK)
    ]
    in_order, reversed_ = merge_blocks(parts, RATE), merge_blocks(parts[::-1], RATE)
    np.testing.assert_array_equal(in_order.onset_strength, reversed_.onset_strength)
    assert in_order.duration_s == reversed_.duration_s


def test_a_stream_in_threads_gives_the_features_of_the_clip(monkeypatch):
    monkeypatch.setattr(features, "iter_blocks", partial(iter_blocks, block_frames=4 * BLOCK))
    samples = _music(10.0, 8_000)
    pcm = PcmStream(8_000, 2, iter(np.array_split(np.stack([samples, samples], 1), 9)))
    streamed = analyze_stream(pcm, Fraction(30), map=map_in_threads(2))
    whole = analyze_clip(AudioClip(samples, 8_000), Fraction(30))
    for name in (
        "onset_strength",
        "beat_frames",
        "decay_linear",
        "rms",
        "bands",
        "chroma",
        "centroid",
    ):
        np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name), err_msg=name)
    assert streamed.tempo == whole.tempo


def test_what_comes_back_from_a_block_is_small():
    """It goes through an object store, and a show's are all held until the last is there."""
    loud, quiet = _music(11.0), _music(11.0, quiet_from=0.0)
    for samples in (loud, quiet):
        block = next(iter_blocks(stream_of_clip(AudioClip(samples, RATE)), 10 * BLOCK))
        num_bytes = len(pickle.dumps(measure_block(block)))
        assert num_bytes < 1_000_000 / 6, "ten seconds of samples are 1.2 MB"


def test_nothing_is_decoded_ahead_of_the_blocks_in_flight():
    """A three-hour show decoded faster than it is measured would fill the memory."""
    decoded, measured, most_ahead = 0, 0, 0
    lock = threading.Lock()

    def source():
        nonlocal decoded
        for _ in range(40):
            with lock:
                decoded += 1
            yield np.zeros((RATE, 1), np.float32)

    def measured_one(block):
        nonlocal measured, most_ahead
        with lock:
            most_ahead = max(most_ahead, decoded - measured)
            measured += 1
        return block.num_frames

    pcm = PcmStream(RATE, 1, source())
    total = sum(map_in_threads(2)(measured_one, iter_blocks(pcm, BLOCK)))
    assert total == 40 * 60 + 1
    assert most_ahead <= 6


def test_an_error_in_a_block_reaches_the_caller():
    def failing(number):
        if number == 3:
            raise ValueError("block 3")
        return number

    with pytest.raises(ValueError, match="block 3"):
        list(map_in_threads(2)(failing, range(100)))


def test_rolling_normalisation_raises_a_quiet_hour():
    """A mix is not of one level: its quiet hour would hardly move the picture."""
    curve = np.abs(np.sin(np.arange(60 * 600) / 20.0)) * np.where(
        np.arange(60 * 600) < 18_000, 1, 0.2
    )
    by_track, rolling = to_unit(curve), to_unit(curve, "rolling")
    assert by_track[-6000:].max() == pytest.approx(0.2, abs=0.01)
    assert rolling[-6000:].max() == pytest.approx(1.0, abs=0.01)
    assert rolling[:6000].max() == pytest.approx(1.0, abs=0.01)
    assert rolling.min() >= 0
    assert rolling.max() <= 1


def test_rolling_normalisation_leaves_silence_silent():
    curve = np.zeros(60 * 300)
    curve[:60] = 1.0
    curve[-60:] = 1e-6
    assert to_unit(curve, "rolling")[-60:].max() < 1e-4
    assert not to_unit(np.zeros(100), "rolling").any()


def test_only_a_mix_is_normalised_by_its_surroundings():
    """Fidelity: a track of up to 20 minutes keeps the article's scale."""
    samples = _music(100.0, 8_000, quiet_from=25, quiet_by=0.3)
    pcm = stream_of_clip(AudioClip(samples, 8_000))
    rolling = analyze_stream(pcm, Fraction(60), AnalysisSettings(normalise="rolling"))
    curves = _curves(samples, 60 * BLOCK, 8_000)
    default, track = grid_features(curves), grid_features(curves, "track")
    np.testing.assert_array_equal(default.onset_strength, track.onset_strength)
    assert (rolling.bands[-3000:] > 2 * track.bands[-3000:]).any()
