"""The gate for sound: what it lets in is what was recorded, what it refuses is refused plainly."""

import shutil
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from asha_ray.audio import decode
from asha_ray.audio.decode import heard_blocks, load_audio, stream_audio
from asha_ray.audio.duration import counted_duration
from asha_ray.errors import AudioError
from tests.media import (
    convert,
    decode_with_ffmpeg,
    music,
    run_ffmpeg,
    silent_video,
    tone,
    write_sound,
)

FORMATS = ["wav", "flac", "mp3", "ogg", "m4a", "alac.m4a", "opus", "aiff", "mka"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def original(folder):
    """Three seconds in stereo."""
    return write_sound(folder / "original.wav", music(3.0, num_channels=2))


def _as(original: Path, suffix: str) -> Path:
    path = original.with_name(f"as.{suffix}")
    if not path.exists():
        options = ["-c:a", "alac"] if suffix.startswith("alac") else []
        convert(original, path, *options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_usual_format_is_heard(original, suffix):
    clip = load_audio(_as(original, suffix))
    expected = music(3.0, num_channels=2).mean(axis=1)
    if clip.sample_rate == 44_100:
        length = min(len(clip.samples), len(expected))
        # Lossy codecs may pad at the end and delay by their priming.
        errors = [
            np.abs(clip.samples[lag:length] - expected[: length - lag]).mean()
            for lag in (0, 1024, 1105, 2257)
            if lag < length
        ]
        assert min(errors) < 0.02
    assert float(clip.duration_s) == pytest.approx(3.0, abs=0.06)
    assert (clip.samples.dtype, clip.samples.ndim, clip.num_replaced) == (np.float32, 1, 0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "alac.m4a"])
def test_lossless_sound_comes_in_exactly(original, suffix):
    stream = stream_audio(_as(original, suffix))
    heard = np.concatenate(list(stream.blocks))
    assert (stream.sample_rate, stream.num_channels) == (44_100, 2)
    rounded = np.clip(np.round(music(3.0, num_channels=2) * 32768), -32768, 32767) / 32768
    assert heard.shape == rounded.shape
    np.testing.assert_allclose(heard, rounded, rtol=0, atol=1.01 / 32768)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 48_000, 96_000])
def test_the_sample_rate_is_the_files_own(tmp_path, sample_rate):
    path = write_sound(tmp_path / "t.wav", tone(0.5, sample_rate), sample_rate)
    clip = load_audio(path)
    assert clip.sample_rate == sample_rate
    assert clip.duration_s == Fraction(1, 2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
def test_surround_sound_keeps_its_channels_and_is_mixed_evenly(tmp_path, suffix):
    samples = tone(0.4, num_channels=6)
    path = write_sound(tmp_path / "s.wav", samples)
    if suffix != "wav":
        codec = ["-c:a", "alac"] if suffix == "m4a" else []
        path = convert(path, tmp_path / f"s.{suffix}", "-channel_layout", "5.1", *codec)
    assert stream_audio(path).num_channels == 6
    mix = load_audio(path).samples
    np.testing.assert_allclose(mix, samples.mean(axis=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "flac"])
def test_album_art_is_not_taken_for_the_sound(original, tmp_path, suffix):
    """The cover is a video stream; it must neither be decoded nor stop the sound."""
    cover = tmp_path / "cover.png"
    Image.new("RGB", (32, 32), "red").save(cover)
    plain, path = _as(original, suffix), tmp_path / f"art.{suffix}"
    art = ("-map", "0:a", "-map", "1:v", "-c", "copy", "-disposition:v", "attached_pic")
    run_ffmpeg("-i", plain, "-i", cover, *art, path)
    assert path.stat().st_size > plain.stat().st_size
    assert float(load_audio(path).duration_s) == pytest.approx(3.0, abs=0.06)


def test_of_a_video_the_sound_is_heard(original, tmp_path):
    picture = silent_video(tmp_path / "v.mp4", seconds=1.0)
    path = tmp_path / "both.mp4"
    run_ffmpeg("-i", picture, "-i", original, "-map", "0:v", "-map", "1:a", "-c:v", "copy", path)
    clip = load_audio(path)
    assert float(clip.duration_s) == pytest.approx(3.0, abs=0.06)
    assert np.abs(clip.samples).max() > 0.3


NAMES = [
    "a:b",
    "http:x",
    "with space",
    'it\'s "quoted"',
    "музыка 音楽 é",
    "-i",
    "--help",
    "%d",
    "back\\slash",
    "#1",
    "pipe:0",
    "a|b",
    "concat:x|y",
]


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_only_a_name(original, tmp_path, monkeypatch, name, suffix):
    """`a:b.wav` was taken for a protocol, `-i` for an option, `%d` for a pattern."""
    path = tmp_path / f"{name}.{suffix}"
    shutil.copy(_as(original, suffix), path)
    monkeypatch.chdir(tmp_path)
    # A whole path begins with a slash, whatever the name; ffmpeg is started for each.
    for given in (path, Path(path.name)) if suffix == "wav" else (Path(path.name),):
        clip = load_audio(given)
        assert float(clip.duration_s) == pytest.approx(3.0, abs=0.06)


def test_a_file_that_is_named_dash_is_not_standard_input(original, tmp_path, monkeypatch):
    """libsndfile reads stdin for '-': a render would hang waiting for the keyboard."""
    shutil.copy(original, tmp_path / "-")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode.ffmpeg, "Program", None)  # it is a WAV file: libsndfile's
    assert load_audio("-").duration_s == 3


def _playlist(text: str):
    return lambda path, other: path.write_text(text.format(other=other.name))


ATTACKS = {
    "ffconcat": _playlist("ffconcat version 1.0\nfile '{other}'\n"),
    "hls": _playlist("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{other}\n#EXT-X-ENDLIST\n"),
    "sdp": _playlist("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
}


@pytest.mark.parametrize("name", ["show.mp3", "show.m4a"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_playlist_in_disguise_reads_no_other_file(original, tmp_path, attack, name):
    """A stranger's upload would put any file of the server into the video."""
    other = tmp_path / "secret.mp3"
    shutil.copy(_as(original, "mp3"), other)
    path = tmp_path / name
    ATTACKS[attack](path, other)
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(path)


def test_the_playlist_attack_is_a_real_one(original, tmp_path):
    """Without this control the test above could pass for another reason."""
    other = tmp_path / "secret.mp3"
    shutil.copy(_as(original, "mp3"), other)
    path = tmp_path / "show.mp3"
    ATTACKS["ffconcat"](path, other)
    assert len(decode_with_ffmpeg(path)) > 44_100


def _text(path: Path) -> None:
    path.write_text("Not a sound, but a letter.\n" * 200)


def _binary(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).integers(0, 32, 20_000, np.uint8).tobytes())


def _header_only(path: Path) -> None:
    write_sound(path.with_suffix(".wav"), np.zeros(0, np.float32))
    path.with_suffix(".wav").rename(path)


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "one-byte": (lambda path: path.write_bytes(b"R"), "cannot be decoded"),
    "text": (_text, "cannot be decoded"),
    "binary": (_binary, "cannot be decoded"),
    "no-samples": (_header_only, "holds no samples|cannot be decoded"),
    "missing": (lambda path: None, "there is no such file; check the path"),
    "folder": (lambda path: path.mkdir(), "it is a folder"),
    "null-device": (lambda path: path.symlink_to("/dev/null"), "no regular file"),
    "dead-link": (lambda path: path.symlink_to("nowhere"), "there is no such file"),
}


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a", ""])
@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_sound_is_refused_in_a_line(tmp_path, kind, suffix):
    path = tmp_path / f"broken{suffix}"
    make, reason = BROKEN[kind]
    make(path)
    with pytest.raises(AudioError, match=reason) as caught:
        load_audio(path)
    text = str(caught.value)
    assert text.startswith(f"reading audio {path}: ")
    assert "\n" not in text
    assert ";" in text, "it does not say what to do"


def test_a_video_without_sound_is_refused(tmp_path):
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(silent_video(tmp_path / "v.mp4"))


@pytest.mark.parametrize("sample_rate", [500, 1_000_000])
def test_a_sample_rate_that_is_no_sound_is_refused(tmp_path, sample_rate):
    path = write_sound(tmp_path / "odd.wav", tone(0.5, 8000), sample_rate)
    with pytest.raises(AudioError, match=f"sample rate of {sample_rate} Hz is outside"):
        load_audio(path)


def test_too_many_channels_are_refused(tmp_path):
    path = write_sound(tmp_path / "many.wav", np.zeros((100, 65), np.float32))
    with pytest.raises(AudioError, match="65 channels are more than 64; mix it down"):
        load_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg", "mka"])
def test_of_a_truncated_file_what_decodes_counts(original, tmp_path, suffix):
    """Its header still claims three seconds; a video of them would end in silence, or fail."""
    data = _as(original, suffix).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    clip = load_audio(path)
    assert 0.7 < float(clip.duration_s) < 2.2
    assert np.abs(clip.samples[-22_050:]).max() > 0.05, "it ends in silence that is not there"


def test_a_truncated_wav_gives_every_sample_that_is_there(original, tmp_path):
    data = original.read_bytes()
    path = tmp_path / "cut.wav"
    path.write_bytes(data[: 44 + 4 * 50_000])
    assert len(load_audio(path).samples) == 50_000


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg"])
def test_damage_in_the_middle_does_not_end_the_sound(original, tmp_path, suffix):
    """A scratch in a three-hour show must not cost the two hours after it."""
    data = bytearray(_as(original, suffix).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path = tmp_path / f"scratched.{suffix}"
    path.write_bytes(data)
    clip = load_audio(path)
    assert 2.3 < float(clip.duration_s) < 3.1


@pytest.mark.parametrize("num_channels", [1, 2])
def test_samples_that_are_no_numbers_are_silence_and_counted(tmp_path, num_channels):
    samples = tone(0.5, num_channels=num_channels).reshape(-1, num_channels).copy()
    samples[100:110, 0] = np.nan
    samples[200, -1] = np.inf
    samples[201, -1] = -np.inf
    samples[202, -1] = 1e30  # squared, this would overflow
    path = write_sound(tmp_path / "nan.wav", samples, subtype="FLOAT")
    clip = load_audio(path)
    assert clip.num_replaced == 13
    clean = np.where(np.abs(samples) <= 1, samples, 0)  # NaN compares false
    np.testing.assert_allclose(clip.samples, clean.mean(axis=1), rtol=0, atol=1e-7)


def test_loud_but_real_samples_stay(tmp_path):
    path = write_sound(tmp_path / "loud.wav", 20 * tone(0.1), subtype="FLOAT")
    clip = load_audio(path)
    assert clip.num_replaced == 0
    assert np.abs(clip.samples).max() == pytest.approx(10, abs=0.1)


RANGES = [(0.0, 3.0), (0.5, 1.0), (1.0, 0.25), (2.9, 5.0), (0.0, 1 / 44_100), (1 / 3, 1 / 7)]


@pytest.mark.parametrize("block", [997, 1 << 18])
@pytest.mark.parametrize("suffix", ["wav", "alac.m4a"])
@pytest.mark.parametrize(("start", "duration"), RANGES)
def test_a_range_of_sound_is_cut_to_the_sample(
    original, monkeypatch, suffix, block, start, duration
):
    """A cut at block boundaries would shift sound against picture by up to six seconds."""
    path = _as(original, suffix)
    whole = np.concatenate(list(stream_audio(path).blocks))
    monkeypatch.setattr(decode, "BLOCK_SAMPLES", block)
    stream = heard_blocks(path, start, duration)
    heard = np.concatenate(list(stream.blocks))
    first = round(start * 44_100)
    np.testing.assert_array_equal(heard, whole[first : first + round(duration * 44_100)])


def test_what_is_heard_holds_no_damage(tmp_path):
    samples = tone(0.2).copy()
    samples[50] = np.nan
    path = write_sound(tmp_path / "nan.wav", samples, subtype="FLOAT")
    assert np.isfinite(np.concatenate(list(heard_blocks(path, 0, 1).blocks))).all()


def test_blocks_do_not_hold_the_whole_track(original, monkeypatch):
    """Three hours in one array are gigabytes."""
    monkeypatch.setattr(decode, "BLOCK_SAMPLES", 10_000)
    for path in (original, _as(original, "alac.m4a")):
        lengths = [len(block) for block in stream_audio(path).blocks]
        assert max(lengths) <= 10_000
        assert sum(lengths) == 3 * 44_100


def test_ffmpeg_is_ended_when_nobody_listens_any_more(original, monkeypatch):
    """A range out of a long show would leave a decoder running for each render."""
    started = []

    class Watched(decode.ffmpeg.Program):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(decode.ffmpeg, "Program", Watched)
    monkeypatch.setattr(decode, "BLOCK_SAMPLES", 1000)
    stream = heard_blocks(_as(original, "alac.m4a"), 0.0, 0.1)
    list(stream.blocks)
    del stream
    assert [program._process.poll() is None for program in started] == [False]


def test_a_device_without_an_end_is_refused(tmp_path):
    """Its sha256 would never be done."""
    path = tmp_path / "endless.wav"
    path.symlink_to("/dev/zero")
    with pytest.raises(AudioError, match="it is no regular file"):
        load_audio(path)


def test_a_block_of_a_thousand_channels_is_not_decoded(tmp_path):
    path = write_sound(tmp_path / "many.wav", np.zeros((3_000, 1000), np.float32))
    tracemalloc.start()
    with pytest.raises(AudioError, match="1000 channels are more than 64"):
        load_audio(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_an_mp3_without_a_table_of_contents_is_heard_to_its_end(tmp_path):
    """Its length is guessed from the first bit rate: after a loud begin a quarter was heard."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 44_100).astype(np.float32)
    wav = write_sound(tmp_path / "a.wav", np.concatenate([noise, tone(5.0)]))
    mp3 = convert(wav, tmp_path / "a.mp3", "-q:a", "5", "-write_xing", "0")
    assert soundfile.info(str(mp3)).duration < 1.5, "libsndfile guesses well: this tests nothing"

    clip = load_audio(mp3)

    assert float(clip.duration_s) == pytest.approx(6.0, abs=0.1)
    assert np.abs(clip.samples[-2 * clip.sample_rate : -clip.sample_rate]).max() > 0.1
    assert float(counted_duration(mp3)) == pytest.approx(6.0, abs=0.1)
