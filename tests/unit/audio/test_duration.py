"""A track's length without decoding it: what a plan of hours of sound can wait for."""

from pathlib import Path

import pytest

from asha_ray.audio.duration import counted_duration
from asha_ray.errors import AudioError
from tests import media

SECONDS = 1.5


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_sound(tmp_path_factory.mktemp("sound") / "t.wav", media.tone(SECONDS))


def test_samples_are_counted_exactly(track: Path) -> None:
    assert counted_duration(track) == SECONDS


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg", "m4a", "webm"])
def test_other_formats_are_as_long_within_a_packet_or_two(
    track: Path, tmp_path: Path, suffix: str
) -> None:
    path = media.convert(track, tmp_path / f"t.{suffix}")
    assert float(counted_duration(path)) == pytest.approx(SECONDS, abs=0.08)


@pytest.mark.parametrize("content", [b"", b"no sound at all"], ids=["empty", "text"])
def test_what_is_no_sound_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.m4a"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"reading audio .*t\.m4a: .*; give a sound file"):
        counted_duration(path)
