"""Sound that is copied is heard in the video when it was heard in the file, or it is not copied."""

import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from asha_ray.audio.decode import stream_audio
from asha_ray.errors import EncodeError
from asha_ray.video.probe import probe
from asha_ray.video.sound import copy_audio
from asha_ray.video.stitch import stitch
from tests.media import (
    convert,
    decode_with_ffmpeg,
    music,
    run_ffmpeg,
    silent_video,
    tone,
    write_sound,
)

MP3 = ("-c:a", "libmp3lame")
COPIED = {
    "cbr.mp3": ("mp3", *MP3, "-b:a", "128k"),
    "cbr-without-header.mp3": ("mp3", *MP3, "-b:a", "128k", "-write_xing", "0"),
    "vbr.mp3": ("mp3", *MP3, "-q:a", "4"),
    "low-rate.mp3": ("mp3", *MP3, "-ar", "22050"),
    "mp3.mkv": ("mp3", *MP3),
    "adts.aac": ("aac", "-c:a", "aac"),
    "aac.m4a": ("aac", "-c:a", "aac"),
    "aac.mkv": ("aac", "-c:a", "aac"),
    "aac.ts": ("aac", "-c:a", "aac"),
    "alac.m4a": ("alac", "-c:a", "alac"),
    "flac.flac": ("flac",),
    "flac.ogg": ("flac", "-c:a", "flac"),
    "opus.ogg": ("opus", "-c:a", "libopus"),
    "opus.webm": ("opus", "-c:a", "libopus"),
    "ac3.ac3": ("ac3", "-c:a", "ac3"),
    "eac3.eac3": ("eac3", "-c:a", "eac3"),
}
REFUSED = {
    "plain.wav": (r"players do not look for pcm_s16le in an mp4",),
    "vorbis.ogg": (r"players do not look for vorbis in an mp4", "-c:a", "libvorbis"),
    "mp2.mp2": (r"players do not look for mp2 in an mp4", "-c:a", "mp2"),
    "8-kHz.mp3": (r"Invalid argument", *MP3, "-ar", "8000"),
    "rounded.mka": (r"its times leap at", "-c:a", "flac", "-frame_size", "280"),
}
SECONDS = 1.4


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Music as a plain file: clicks over a tone, so that a shift of a sample can be seen."""
    path = tmp_path_factory.mktemp("sound") / "music.wav"
    return write_sound(path, music(SECONDS, num_channels=2))


@pytest.fixture(scope="module")
def sources(original, tmp_path_factory):
    """The folder with the music in all formats, of one run of ffmpeg: each start has a price."""
    folder = tmp_path_factory.mktemp("sources")
    formats = {name: options for name, (_, *options) in (COPIED | REFUSED).items()}
    outputs = [part for name in formats for part in (*formats[name], f"file:{folder / name}")]
    run_ffmpeg("-i", original, *outputs)
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "picture.mp4"
    return silent_video(path, "-preset", "ultrafast", seconds=SECONDS)


def _heard(path):
    stream = stream_audio(path)
    return np.concatenate(list(stream.blocks)).mean(axis=1), stream.sample_rate


def _shift_s(sound, reference, sample_rate):
    """Seconds by which a sound comes later than another, and how alike they are, 1 at most."""
    size = 2 * max(len(sound), len(reference))
    spectra = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(reference, size))
    correlation = np.fft.irfft(spectra)
    best = int(np.argmax(correlation))
    alike = correlation[best] / np.linalg.norm(sound) / np.linalg.norm(reference)
    return (best - size if best > size // 2 else best) / sample_rate, alike


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_is_heard_when_the_original_is(sources, picture, tmp_path, name):
    """An encoder's delay would put every beat of a show 25 ms behind its picture."""
    codec, source = COPIED[name][0], sources / name
    reference, sample_rate = _heard(source)
    duration_s = Fraction(len(reference), sample_rate)
    copy, video = tmp_path / "copy.m4a", tmp_path / "v.mp4"
    assert copy_audio(source, copy, duration_s) == codec
    stitch([(picture, round(30 * SECONDS))], copy, video, Fraction(30))
    sound = decode_with_ffmpeg(video, 2, sample_rate).mean(axis=1)
    shift_s, alike = _shift_s(sound, reference, sample_rate)
    assert abs(shift_s) < 0.001
    assert alike > 0.99
    report = probe(video, decode=False)
    assert report.audio_start_s == 0
    assert report.audio_duration_s == pytest.approx(float(duration_s), abs=0.001)


def test_tags_that_are_no_utf_8_do_not_keep_the_sound_from_being_copied(original, tmp_path):
    """Old taggers wrote whatever their system did: a whole archive would be encoded anew."""
    source = convert(original, tmp_path / "old.flac", "-metadata", "title=Xsa")
    source.write_bytes(source.read_bytes().replace(b"Xsa", b"\xc5sa"))
    copy = tmp_path / "copy.m4a"
    assert copy_audio(source, copy, Fraction(str(SECONDS))) == "flac"
    with av.open(str(copy)) as container:
        assert "title" not in container.metadata


@pytest.mark.parametrize("name", REFUSED)
def test_what_players_or_times_do_not_bear_is_refused(sources, tmp_path, name):
    reason, source = REFUSED[name][0], sources / name
    with pytest.raises(EncodeError, match=rf"copying the sound of {name}: .*{reason}"):
        copy_audio(source, tmp_path / "copy.m4a", Fraction(str(SECONDS)))


@pytest.mark.parametrize(
    ("heard_s", "told"), [(1.0, "goes on after the 1.000 s"), (4.0, "ends at 1.4")]
)
def test_a_copy_of_another_length_than_what_was_heard_is_refused(sources, tmp_path, heard_s, told):
    """A damaged file may decode to less than its packets promise; the video is as long as that."""
    source = sources / "cbr.mp3"
    with pytest.raises(EncodeError, match=rf"it {told}.* were heard; encode it"):
        copy_audio(source, tmp_path / "copy.m4a", Fraction(str(heard_s)))


def test_the_sound_of_a_video_is_copied_without_its_picture(sources, picture, tmp_path):
    source = tmp_path / "show.mp4"
    run_ffmpeg("-i", picture, "-i", sources / "aac.m4a", "-c", "copy", source)
    copy = tmp_path / "copy.m4a"
    assert copy_audio(source, copy, Fraction(str(SECONDS))) == "aac"
    with av.open(str(copy)) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        assert not {"title", "artist"} & set(container.metadata)


def test_a_hole_in_the_times_is_refused(tmp_path):
    """A recorder that loses packets leaves one: players wait there, decoders do not."""
    whole = convert(write_sound(tmp_path / "a.wav", tone(1.0)), tmp_path / "a.ts", "-c:a", "aac")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "hole.ts"), "w") as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(source.streams.audio[0])):
            if packet.size and not 10 <= number < 14:
                packet.stream = stream
                output.mux(packet)
    with pytest.raises(EncodeError, match=r"its times leap at 0\.2\d+ s; encode it"):
        copy_audio(tmp_path / "hole.ts", tmp_path / "copy.m4a", Fraction(9, 10))


BROKEN = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a letter\n" * 99),
    "playlist": lambda path: path.write_text("ffconcat version 1.0\nfile 'cbr.mp3'\n"),
}


@pytest.mark.parametrize("kind", [*BROKEN, "picture"])
def test_what_holds_no_sound_is_refused_in_a_line(sources, picture, tmp_path, kind):
    shutil.copyfile(sources / "cbr.mp3", tmp_path / "cbr.mp3")
    path = tmp_path / "show.mp3"
    if kind == "picture":
        shutil.copyfile(picture, path)
    else:
        BROKEN[kind](path)
    with pytest.raises(EncodeError, match=r"copying the sound of show\.mp3: .*; encode it") as told:
        copy_audio(path, tmp_path / "copy.m4a", Fraction(1))
    assert "\n" not in str(told.value)
