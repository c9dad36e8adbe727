"""Features: librosa's on the article's grid, and the same music at any other frame rate."""

import warnings
from fractions import Fraction
from math import ceil, floor

import librosa
import numpy as np
import pytest

from asha_ray.audio.decode import load_audio
from asha_ray.audio.features import analyze_clip, measure
from asha_ray.values import AudioClip
from tests.media import clicks, convert, music, tone, write_sound

RATES = [
    Fraction(24),
    Fraction(25),
    Fraction(30),
    Fraction(30000, 1001),
    Fraction(50),
    Fraction(60),
]
OTHER_RATES = [rate for rate in RATES if rate != 60] + [Fraction(120), Fraction(7, 2)]
ARRAYS = ("onset_strength", "decay_linear", "decay_exponential", "rms", "bands")


@pytest.fixture(scope="module")
def clip():
    return AudioClip(music(4.0), 44_100)


@pytest.fixture(scope="module")
def at_60(clip):
    return analyze_clip(clip, Fraction(60))


@pytest.fixture(scope="module", params=OTHER_RATES, ids=str)
def at_another(request, clip):
    """The clip's features at a rate that is not the grid's."""
    return analyze_clip(clip, request.param)


@pytest.fixture(scope="module")
def owned(at_60, at_another):
    """For each video frame, the frames of the grid to which it is the nearest."""
    num_frames = at_another.num_frames
    owners = [_owner(frame, at_another.fps, num_frames) for frame in range(at_60.num_frames)]
    return [np.flatnonzero(np.equal(owners, frame)) for frame in range(num_frames)]


def _direct(path):
    """Onset strength and beats as the article computes them: with librosa alone."""
    from asha_ray.audio.tracker import beat_track  # librosa's own

    samples, _ = librosa.load(path, sr=30_720)
    onset = librosa.onset.onset_strength(y=samples, sr=30_720, hop_length=512, aggregate=np.median)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tempo, beats = beat_track(y=samples, sr=30_720, hop_length=512)
    return onset / onset.max(), beats, float(np.atleast_1d(tempo)[0])


# librosa.load, which only this test calls, looks through audioread's backends.
@pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("suffix", "num_channels"),
    [("wav", 1), ("wav", 2), ("flac", 2), ("mp3", 2), ("ogg", 2), ("ffmpeg.mp3", 2)],
)
def test_at_60_fps_features_are_librosas(tmp_path, suffix, num_channels):
    """Another resampler, mix or hop would move every beat of an artist's old work."""
    sound = music(4.0, num_channels=num_channels)
    if suffix.startswith("ffmpeg"):  # the others are libsndfile's
        path = convert(write_sound(tmp_path / "t.wav", sound), tmp_path / f"t.{suffix}")
    else:
        path = write_sound(tmp_path / f"t.{suffix}", sound)
    onset, beats, tempo = _direct(path)
    features = analyze_clip(load_audio(path), Fraction(60))
    assert len(beats) > 5
    np.testing.assert_allclose(
        features.onset_strength, onset[: features.num_frames], rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(features.beat_frames, beats)
    np.testing.assert_allclose(features.beat_times, beats / 60, rtol=0, atol=1e-12)
    assert features.tempo == pytest.approx(tempo)


def test_level_is_the_root_mean_square(clip, at_60):
    """A sine at half of full scale has a level of 0.3536."""
    level = analyze_clip(AudioClip(tone(1.0), 44_100), Fraction(60)).rms
    np.testing.assert_allclose(level[5:-5], 0.5 / np.sqrt(2), rtol=0.01)
    assert 0 <= at_60.rms.min() <= at_60.rms.max() <= 1


@pytest.mark.parametrize(("hertz", "band"), [(100, 0), (1000, 1), (8000, 2)])
def test_each_band_hears_its_own_frequencies(hertz, band):
    half = tone(1.0, hertz=hertz)
    others = sum(tone(1.0, hertz=h) for h in (100, 1000, 8000) if h != hertz)
    heard = AudioClip(np.concatenate([half, others / 2]), 44_100)
    bands = analyze_clip(heard, Fraction(60)).bands
    assert bands.shape == (120, 3)
    assert bands.max(axis=0) == pytest.approx([1, 1, 1], abs=0.01)
    assert bands[20:40, band].min() > 0.9
    assert bands[80:100, band].max() < 0.1


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize(
    ("num_samples", "sample_rate"),
    [(48_000, 48_000), (48_048, 48_000), (44_101, 44_100), (88_199, 44_100), (8_000, 8_000)],
)
def test_the_number_of_frames_is_the_duration_rounded_up(fps, num_samples, sample_rate):
    """One frame more or less puts sound and picture apart at the end."""
    samples = tone(num_samples / sample_rate, sample_rate)
    assert len(samples) == num_samples
    features = analyze_clip(AudioClip(samples, sample_rate), fps)
    expected = ceil(Fraction(num_samples, sample_rate) * fps)
    assert [len(getattr(features, name)) for name in ARRAYS] == [expected] * len(ARRAYS)
    assert features.duration_s == num_samples / sample_rate
    assert features.fps == fps


def _owner(grid_frame: int, fps: Fraction, num_frames: int) -> int:
    """The video frame nearest to a frame of the grid, the later of two equally near."""
    place = grid_frame * fps / 60
    around = (floor(place), floor(place) + 1)
    return min(max(around, key=lambda frame: (-abs(frame - place), frame)), num_frames - 1)


def test_at_other_rates_no_peak_is_lost(at_60, at_another, owned):
    """At 24 fps an onset between two frames would otherwise vanish, and the beat with it."""
    onset = at_another.onset_strength
    for frame, places in enumerate(owned):
        if len(places):
            assert abs(onset[frame] - at_60.onset_strength[places].max()) < 1e-6
    assert onset.max() == pytest.approx(1, abs=1e-6)
    assert onset.min() >= 0


def test_at_other_rates_levels_are_means_or_lie_between(at_60, at_another, owned):
    for frame, places in enumerate(owned):
        time = min(frame * 60 / float(at_another.fps), at_60.num_frames - 1)
        between = np.interp(time, np.arange(at_60.num_frames), at_60.rms)
        expected = at_60.rms[places].mean() if len(places) else between
        assert abs(at_another.rms[frame] - expected) < 1e-6


def test_at_other_rates_beats_are_at_the_nearest_frame(at_60, at_another):
    fps, beats = at_another.fps, at_another.beat_frames
    nearest = {_owner(int(frame), fps, at_another.num_frames) for frame in at_60.beat_frames}
    assert beats.tolist() == sorted(nearest)
    if fps >= 24:
        apart = np.abs(beats / float(fps) - at_another.beat_times)
        assert apart.max() <= 0.5 / float(fps) + 1e-9


def test_beat_frames_and_beat_times_tell_of_the_same_beats():
    """At 1 fps two beats share a frame; the file's two arrays `[k]` must still fit each other."""
    features = analyze_clip(AudioClip(music(6.0), 44_100), Fraction(1))
    assert len(features.beat_frames) == len(features.beat_times)


def test_no_drift_at_drop_frame_rates():
    """After an hour at 30000/1001 a rounded rate is 3.6 s off; here the last click stays put."""
    times = [0.25 + 0.5 * beat for beat in range(38)]
    track = AudioClip(clicks(19.5, times, 22_050), 22_050)
    fps = Fraction(30000, 1001)
    features = analyze_clip(track, fps)
    strong = np.flatnonzero(features.onset_strength > 0.5) / float(fps)
    for time_s in times[1:]:
        assert np.abs(strong - time_s).min() < 0.05


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("seconds", [2.0, 0.2, 1 / 44_100])
def test_silence_is_zero_and_never_nan(fps, seconds):
    """Dividing by the maximum of silence gives NaN, and NaN latents give black video."""
    silence = np.zeros(round(seconds * 44_100), np.float32)
    features = analyze_clip(AudioClip(silence, 44_100), fps)
    assert features.num_frames == ceil(Fraction(len(silence), 44_100) * fps)
    for name in ARRAYS:
        assert not getattr(features, name).any()
    assert (len(features.beat_frames), len(features.beat_times), features.tempo) == (0, 0, 0.0)


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("seconds", [0.2, 0.05, 0.01, 1 / 44_100])
def test_the_shortest_clips_have_features(fps, seconds):
    samples = clicks(0.3, [0.0])[: max(1, round(seconds * 44_100))]
    features = analyze_clip(AudioClip(samples, 44_100), fps)
    assert features.num_frames == ceil(Fraction(len(samples), 44_100) * fps)
    for name in ARRAYS:
        assert np.isfinite(getattr(features, name)).all()
    assert (features.beat_frames < features.num_frames).all()


@pytest.mark.parametrize("sample_rate", [8_000, 30_720, 96_000])
def test_any_sample_rate_is_brought_to_the_grid(sample_rate):
    times = [0.5, 1.0, 1.5]
    grid = measure(AudioClip(clicks(2.0, times, sample_rate), sample_rate))
    for time_s in times:
        frame = round(time_s * 60)
        assert grid.onset_strength[frame - 3 : frame + 4].max() > 0.3


def test_a_constant_offset_has_no_beats_in_the_middle():
    offset = np.full(44_100, 0.5, np.float32)
    features = analyze_clip(AudioClip(offset, 44_100), Fraction(60))
    assert not features.onset_strength[5:-5].any()


def test_envelopes_follow_the_settings(clip):
    slow = analyze_clip(clip, Fraction(30), decay_time=1.0, decay_rate=0.05)
    fast = analyze_clip(clip, Fraction(30), decay_time=0.1, decay_rate=0.5)
    assert slow.decay_linear.sum() > 2 * fast.decay_linear.sum()
    assert slow.decay_exponential.sum() > 2 * fast.decay_exponential.sum()
    shaped = analyze_clip(clip, Fraction(30), decay_shape="proportional")
    assert not np.array_equal(shaped.decay_linear, analyze_clip(clip, Fraction(30)).decay_linear)


def test_the_same_sound_gives_the_same_features(clip, at_60):
    again = analyze_clip(clip, Fraction(60))
    for name in ARRAYS:
        assert getattr(again, name).tobytes() == getattr(at_60, name).tobytes()
