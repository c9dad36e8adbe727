"""Whatever sound people have goes through the whole analysis, and comes back from its file."""

import subprocess
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from asha_ray import ffmpeg
from asha_ray.audio.decode import stream_audio
from asha_ray.audio.features import analyze_stream
from asha_ray.audio.features_file import LATER, read_features, write_features
from asha_ray.values import num_frames_of
from tests.mix import SAMPLE_RATE, mix

FPS = Fraction(30)
SECONDS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    samples = np.concatenate(list(mix(SECONDS, 120, 120)[0].blocks))
    path = tmp_path_factory.mktemp("sound") / "original.wav"
    soundfile.write(str(path), samples, SAMPLE_RATE)
    return path


def _ffmpeg(*arguments):
    command = [ffmpeg.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _analyzed(path):
    return analyze_stream(stream_audio(path), FPS)


@pytest.fixture(scope="module")
def heard(original):
    return _analyzed(original)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("mono.flac", ["-ac", "1"], id="mono"),
        pytest.param("low.wav", ["-ar", "8000"], id="8-khz"),
        pytest.param("high.flac", ["-ar", "96000"], id="96-khz"),
        pytest.param("surround.wav", ["-ac", "6"], id="5.1"),
        pytest.param("surround.m4a", ["-ac", "6", "-ar", "48000"], id="5.1-aac"),
        pytest.param("a:b 100% 'ünï' #1?.mp3", [], id="odd-name"),
        pytest.param("-.ogg", [], id="named-like-an-option"),
        pytest.param("file:x.opus", [], id="named-like-a-protocol"),
    ],
)
def test_every_kind_of_sound_has_the_same_beats(original, heard, tmp_path, name, options):
    path = tmp_path / name
    _ffmpeg("-i", original, *options, f"file:{path}")
    features = _analyzed(path)
    # Codecs add some padding; what is heard stays where it was.
    assert abs(features.num_frames - num_frames_of(Fraction(SECONDS), FPS)) <= 3
    shared = min(len(features.onset_strength), len(heard.onset_strength))
    likeness = np.corrcoef(features.onset_strength[:shared], heard.onset_strength[:shared])
    assert likeness[0, 1] > 0.7
    assert len(features.beat_times) == pytest.approx(len(heard.beat_times), abs=1)


def test_album_art_is_not_music(original, tmp_path):
    picture, path = tmp_path / "cover.png", tmp_path / "song.mp3"
    _ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", picture)
    _ffmpeg(
        *("-i", original, "-i", picture, "-map", "0:a", "-map", "1:v", "-c:v", "copy"),
        *("-id3v2_version", "3", "-disposition:v", "attached_pic", path),
    )
    assert len(_analyzed(path).beat_times) > 5


def test_all_that_was_heard_is_in_the_file(heard, tmp_path):
    path = tmp_path / "f.npz"
    write_features(heard, path)
    again = read_features(path)
    for name in ("onset_strength", "bands", *LATER):
        np.testing.assert_array_equal(getattr(again, name), getattr(heard, name), err_msg=name)
        assert getattr(again, name).dtype == getattr(heard, name).dtype, name
    assert again.chroma.shape == (heard.num_frames, 12)
    assert len(again.speech) == SECONDS


def test_a_file_from_before_there_was_chroma_is_still_read(heard, tmp_path):
    """A work root's features are never computed again, so old ones stay for good."""
    new, old = tmp_path / "new.npz", tmp_path / "old.npz"
    write_features(heard, new)
    with np.load(new, allow_pickle=False) as file:
        np.savez_compressed(old, **{key: file[key] for key in file if key not in LATER})
    features = read_features(old)
    assert features.num_frames == SECONDS * 30
    assert features.chroma.shape == (0, 12)
    assert len(features.speech) == len(features.track_times) == 0
