"""The picture of the features: it appears, shows something, and no title breaks it."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from asha_ray.audio.blocks import stream_of_clip
from asha_ray.audio.features import analyze_clip
from asha_ray.audio.plot import _peaks, measure_waveform, plot_features
from asha_ray.values import AudioClip, PcmStream
from tests.media import music


@pytest.fixture(scope="module")
def clip():
    return AudioClip(music(3.0), 44_100)


@pytest.fixture(scope="module")
def features(clip):
    return analyze_clip(clip, Fraction(24))


@pytest.fixture(scope="module")
def drawn(clip, features, tmp_path_factory):
    """The pixels of the clip's picture."""
    path = tmp_path_factory.mktemp("picture") / "p.png"
    plot_features(measure_waveform(stream_of_clip(clip)), features, path, "track.wav")
    return _shown(path)


def _shown(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_sound_beats_and_both_decays_are_drawn(drawn):
    assert drawn.shape[1] > drawn.shape[0] > 500
    for name, colour in {
        "wave": (0x5B, 0x5F, 0x77),
        "onset": (0xF2, 0xB8, 0xFF),
        "linear": (0xFF, 0x4D, 0x5E),
        "exponential": (0x4D, 0x8D, 0xFF),
    }.items():
        near = np.abs(drawn - colour).max(axis=2) < 40
        assert near.sum() > 200, f"{name} is not drawn"


def test_any_file_name_can_be_the_title(clip, features, tmp_path):
    """`$` begins a formula in matplotlib, and a name with one must not end the command."""
    title = "a_b$c$d{%s $\\frac$ музыка 音楽.mp3"
    plot_features(measure_waveform(stream_of_clip(clip)), features, tmp_path / "p.png", title)
    assert _shown(tmp_path / "p.png").max() > 100


def test_silence_and_the_shortest_clip_can_be_drawn(tmp_path):
    """One silent sample: no beats, no title, and a picture of no width."""
    silence = AudioClip(np.zeros(1, np.float32), 44_100)
    features = analyze_clip(silence, Fraction(60))
    plot_features(measure_waveform(stream_of_clip(silence)), features, tmp_path / "p.png")
    _shown(tmp_path / "p.png")


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_a_waveform_is_the_same_however_it_streams(block):
    samples = music(0.6)
    blocks = (samples[start : start + block, None] for start in range(0, len(samples), block))
    wave = measure_waveform(PcmStream(44_100, 1, blocks))
    assert len(wave.times) == 30
    assert wave.low.min() == samples.min()
    assert wave.high.max() == samples.max()
    assert wave.times[int(wave.high.argmax())] == pytest.approx(samples.argmax() / 44_100, abs=0.02)


def test_every_stem_gets_a_row(clip, features, drawn, tmp_path):
    stems = {"drums": features, "bass": features}
    wave = measure_waveform(stream_of_clip(clip))
    plot_features(wave, replace(features, stems=stems), tmp_path / "with.png")
    assert _shown(tmp_path / "with.png").shape[0] > drawn.shape[0]


def test_a_long_curve_is_thinned_without_losing_peaks():
    """Of three hours every 160th point is drawn: a lone peak must be among them."""
    curve = np.zeros(648_000, np.float32)
    curve[123_457] = 1
    times, thin = _peaks(np.arange(len(curve)) / 60, curve)
    assert len(times) == len(thin) < 10_000
    assert thin.max() == 1
    assert times[thin.argmax()] == pytest.approx(123_457 / 60, abs=3)
