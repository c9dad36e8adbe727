"""The picture of the features: it appears, shows something, and no title breaks it."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from asha_ray.audio.features import analyze_clip
from asha_ray.audio.plot import _peaks, plot_features
from asha_ray.values import AudioClip
from tests.media import music


@pytest.fixture(scope="module")
def clip():
    return AudioClip(music(3.0), 44_100)


@pytest.fixture(scope="module")
def features(clip):
    return analyze_clip(clip, Fraction(24))


def _shown(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_sound_beats_and_both_decays_are_drawn(clip, features, tmp_path):
    path = tmp_path / "p.png"
    plot_features(clip, features, path, "track.wav")
    pixels = _shown(path)
    assert pixels.shape[1] > pixels.shape[0] > 500
    for name, colour in {
        "wave": (0x5B, 0x5F, 0x77),
        "onset": (0xF2, 0xB8, 0xFF),
        "linear": (0xFF, 0x4D, 0x5E),
        "exponential": (0x4D, 0x8D, 0xFF),
    }.items():
        near = np.abs(pixels - colour).max(axis=2) < 40
        assert near.sum() > 200, f"{name} is not drawn"


@pytest.mark.parametrize("title", ["a_b$c$d.wav", "$", "\\frac", "музыка 音楽.mp3", "{", "", "%s"])
def test_any_file_name_can_be_the_title(clip, features, tmp_path, title):
    """`$` begins a formula in matplotlib, and a name with one must not end the command."""
    plot_features(clip, features, tmp_path / "p.png", title)
    assert _shown(tmp_path / "p.png").max() > 100


@pytest.mark.parametrize("num_samples", [1, 44_100])
def test_silence_and_the_shortest_clip_can_be_drawn(tmp_path, num_samples):
    silence = AudioClip(np.zeros(num_samples, np.float32), 44_100)
    plot_features(silence, analyze_clip(silence, Fraction(60)), tmp_path / "p.png")
    _shown(tmp_path / "p.png")


def test_a_long_curve_is_thinned_without_losing_peaks():
    """Of three hours every 160th point is drawn: a lone peak must be among them."""
    curve = np.zeros(648_000, np.float32)
    curve[123_457] = 1
    times, thin = _peaks(np.arange(len(curve)) / 60, curve)
    assert len(times) == len(thin) < 10_000
    assert thin.max() == 1
    assert times[thin.argmax()] == pytest.approx(123_457 / 60, abs=3)
