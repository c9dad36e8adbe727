"""`inspect`: what is measured is what is there, and every fault has its sentence."""

from fractions import Fraction

import av
import numpy as np
import pytest

from asha_ray.errors import VideoError
from asha_ray.values import PcmStream
from asha_ray.video.probe import luma_frames, probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch
from tests.media import BT709, convert, run_ffmpeg, silent_video, tone, write_sound
from tests.unit.video.conftest import SIZE, moving_frames

FPS = Fraction(30)
FRAMES = moving_frames(45)


@pytest.fixture
def good(make_segments, tmp_path):
    sound, path = tmp_path / "s.m4a", tmp_path / "good.mp4"
    samples = tone(1.5).reshape(-1, 1)
    encode_audio(PcmStream(44_100, 1, iter([samples])), sound)
    stitch(make_segments(FRAMES, [0, 20, 45], FPS, crf=0), sound, path, FPS)
    return path


def _wrong(tmp_path, *options, seconds=1.0, sound_s=1.0):
    picture = silent_video(tmp_path / "picture.mp4", seconds=seconds)
    sound = write_sound(tmp_path / "sound.wav", tone(sound_s))
    path = tmp_path / "wrong.mp4"
    run_ffmpeg("-i", picture, "-i", sound, "-map", "0:v", "-map", "1:a", *options, path)
    return probe(path)


def test_a_good_video_is_measured_and_nothing_is_found(good):
    report = probe(good)
    assert report.problems() == []
    assert (report.frames, report.fps, report.size, report.codec) == (45, FPS, SIZE, "h264")
    assert (report.video_start_s, report.video_duration_s) == (0, Fraction(3, 2))
    assert report.timestamp_steps == {Fraction(1): 44}
    assert (report.audio_codec, report.audio_start_s) == ("aac", 0)
    assert report.audio_duration_s is not None
    assert abs(report.audio_duration_s - Fraction(3, 2)) < 1 / FPS
    assert report.colour == {
        "matrix": "bt709",
        "primaries": "bt709",
        "transfer": "bt709",
        "range": "limited",
    }
    assert report.faststart


def test_pictures_are_compared_with_their_neighbours(good):
    pictures = probe(good).pictures
    luma = FRAMES[:, : SIZE[0] * SIZE[1]].astype(float)
    expected = np.abs(np.diff(luma, axis=0)).mean(axis=1)
    assert (pictures.num_decoded, pictures.num_distinct) == (45, 45)
    np.testing.assert_allclose(pictures.difference, expected, rtol=1e-5)
    assert probe(good, decode=False).pictures is None


def test_equal_frames_are_counted_once(make_segments, tmp_path):
    """A frozen picture is what a broken motion looks like."""
    frozen = np.repeat(FRAMES[:1], 10, axis=0)
    path = tmp_path / "v.mp4"
    stitch(make_segments(frozen, [0, 10], FPS, crf=0), None, path, FPS)
    pictures = probe(path).pictures
    assert (pictures.num_decoded, pictures.num_distinct) == (10, 1)
    assert not pictures.difference.any()


def test_luma_comes_without_the_padding_of_its_lines(make_segments, tmp_path):
    frames = moving_frames(3, (50, 38))
    path, _ = make_segments(frames, [0, 3], FPS, size=(50, 38), crf=0)[0]
    planes = list(luma_frames(path))
    assert [plane.shape for plane in planes] == [(38, 50)] * 3
    np.testing.assert_array_equal(np.stack(planes).reshape(3, -1), frames[:, : 38 * 50])


def _has(report, part):
    found = report.problems()
    assert any(part in problem for problem in found), f"{part!r} is not in {found}"
    return found


def test_a_video_that_is_right_in_all_but_one_thing_has_one_problem(tmp_path):
    report = _wrong(tmp_path, "-c:v", "copy", "-movflags", "+faststart")
    assert report.problems() == []
    report = _wrong(tmp_path, "-c:v", "copy")
    assert report.problems() == ["the index comes after the data (no faststart)"]


def test_untagged_colours_are_found(tmp_path):
    picture = silent_video(tmp_path / "untagged.mp4", tags={})
    found = _has(probe(picture), "colour is not tagged as BT.709 limited")
    assert any("matrix code" in problem for problem in found)


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("colorspace", "smpte170m", "matrix"),
        ("color_primaries", "bt2020", "primaries"),
        ("color_trc", "smpte170m", "transfer"),
        ("range", "pc", "range"),
    ],
)
def test_each_wrong_colour_tag_is_named(tmp_path, option, value, name):
    report = probe(silent_video(tmp_path / "v.mp4", tags=BT709 | {option: value}))
    assert report.colour[name].startswith("code ")
    assert [k for k, v in report.colour.items() if v.startswith("code ")] == [name]
    _has(report, f"{name} code")


@pytest.mark.parametrize(("sound_s", "sign"), [(1.6, "+0.6"), (0.5, "-0.5")])
def test_sound_of_another_length_is_found(tmp_path, sound_s, sign):
    report = _wrong(tmp_path, "-c:v", "copy", "-movflags", "+faststart", sound_s=sound_s)
    _has(report, f"sound and picture end {sign}")
    assert len(report.problems()) == 1


def test_sound_that_starts_late_is_found(tmp_path):
    picture = silent_video(tmp_path / "p.mp4", seconds=1.0)
    sound = write_sound(tmp_path / "s.wav", tone(0.75))
    path = tmp_path / "late.mkv"
    late = ("-itsoffset", "0.25", "-i", sound)
    run_ffmpeg("-i", picture, *late, "-map", "0:v", "-map", "1:a", "-c:v", "copy", path)
    _has(probe(path), "the sound starts at 0.2")


def test_a_picture_that_starts_late_is_found(tmp_path):
    picture = silent_video(tmp_path / "p.mp4", seconds=1.0)
    path = convert(picture, tmp_path / "late.mkv", "-c", "copy", "-output_ts_offset", "0.5")
    report = probe(path)
    assert float(report.video_start_s) == pytest.approx(0.5, abs=0.002)
    _has(report, "the first frame is shown at 0.5")


def test_a_video_without_sound_is_found(tmp_path):
    report = probe(silent_video(tmp_path / "v.mp4"))
    assert report.problems() == ["there is no sound"]
    assert (report.audio_codec, report.audio_start_s, report.audio_duration_s) == (None, None, None)


def test_a_dropped_frame_is_found(tmp_path):
    """The step over it is two frames long."""
    dropped = "select='not(eq(n,5))'"
    path = silent_video(tmp_path / "v.mp4", "-fps_mode", "vfr", seconds=1.0, filters=dropped)
    report = probe(path)
    assert report.frames == 29
    assert report.timestamp_steps == {Fraction(1): 27, Fraction(2): 1}
    _has(report, "1 timestamp steps are not exactly one frame")


def test_frames_that_do_not_decode_are_counted(good, tmp_path):
    """A half-uploaded file has its whole index at the front, and half its pictures."""
    data = good.read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    try:
        found = probe(path).problems()
    except VideoError:
        return
    assert found


BROKEN = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a letter\n" * 99),
    "folder": lambda path: path.mkdir(),
    "sound-only": lambda path: write_sound(path, tone(0.2), format="WAV"),
    "playlist": lambda path: path.write_text("ffconcat version 1.0\nfile 'other.mp4'\n"),
    "half-a-box": lambda path: path.write_bytes(
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\1mdat\0"
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_video_is_refused_in_a_line(tmp_path, kind):
    silent_video(tmp_path / "other.mp4")
    path = tmp_path / "v.mp4"
    BROKEN[kind](path)
    with pytest.raises(VideoError) as caught:
        probe(path)
    assert str(caught.value).startswith(f"inspecting {path}: ")
    assert "\n" not in str(caught.value)


def test_an_index_that_was_never_written_is_refused(good, tmp_path):
    """What a killed encoder leaves behind."""
    data = good.read_bytes()
    path = tmp_path / "v.mp4"
    path.write_bytes(data.replace(b"moov", b"xxxx"))
    with pytest.raises(VideoError, match=r"v\.mp4"):
        probe(path)


def test_a_single_frame_is_a_video(make_segments, tmp_path):
    path = tmp_path / "v.mp4"
    stitch(make_segments(FRAMES, [0, 1], FPS), None, path, FPS)
    report = probe(path)
    assert (report.frames, report.fps, report.timestamp_steps) == (1, FPS, {})
    assert report.problems() == ["there is no sound"]


def test_frames_beyond_all_size_are_not_decoded(good, monkeypatch):
    """A few bytes may decode to a gigabyte for each of a decoder's many frames."""
    monkeypatch.setattr("asha_ray.video.probe.MAX_PIXELS", 32)
    with pytest.raises(VideoError, match=r"frames of \d+x\d+ are larger than 32 pixels; scale"):
        probe(good)
    with pytest.raises(av.FFmpegError):
        list(luma_frames(good))
