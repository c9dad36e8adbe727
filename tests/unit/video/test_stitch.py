"""The finished video: every frame exactly one frame after the last, and sound that fits it."""

import itertools
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from asha_ray.errors import EncodeError, SegmentError
from asha_ray.values import PcmStream, Tags
from asha_ray.video.probe import luma_frames, probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch
from tests.media import clicks, decode_with_ffmpeg, describe, silent_video, tone
from tests.unit.video.conftest import RATES, SIZE, moving_frames

FRAMES = moving_frames(40)
BOUNDS = [0, 13, 14, 29, 40]
LUMA = SIZE[0] * SIZE[1]


def _sound(path, samples, sample_rate=44_100):
    samples = samples.reshape(len(samples), -1)
    blocks = iter([samples[at : at + 5000] for at in range(0, len(samples), 5000)])
    encode_audio(PcmStream(sample_rate, samples.shape[1], blocks), path)
    return path


def _times(path):
    with av.open(str(path)) as source:
        packets = [p for p in source.demux(video=0) if p.size]
        display = sorted(p.pts * p.time_base for p in packets)
        decoding = [p.dts * p.time_base for p in packets]
        base = packets[0].time_base
    return display, decoding, base


def _boxes(path):
    found, data, at = [], path.read_bytes(), 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        found.append(kind)
        at += size
    return found


NTSC = Fraction(30000, 1001)
OTHERS = (
    *(("libx264", preset) for preset in ("slow", "veryslow")),
    *(("libx265", preset) for preset in ("veryfast", "fast", "slow")),
    *(("libsvtav1", preset) for preset in ("medium", "ultrafast")),
)


# The preset decides how many frames are decoded before their time, the rate what a frame is in
# ticks: each kind of reordering is joined at the hardest rate, each rate with one that reorders,
# and each encoder at two rates.
@pytest.mark.parametrize(
    ("fps", "codec", "preset"),
    [
        *((fps, "libx264", "veryfast") for fps in RATES),
        *((NTSC, *kind) for kind in OTHERS),
        (RATES[4], "libx265", "veryfast"),
        (RATES[4], "libsvtav1", "medium"),
    ],
    ids=str,
)
def test_every_frame_is_exactly_one_frame_after_the_last(
    make_segments, tmp_path, fps, codec, preset
):
    """Joined by their own times, segments leave a jerk at every seam (507 ticks for 512)."""
    segments = make_segments(FRAMES, BOUNDS, fps, preset=preset, codec=codec)
    path = tmp_path / "v.mp4"
    assert stitch(segments, None, path, fps) == 40
    display, decoding, base = _times(path)
    assert display == [index / fps for index in range(40)]
    assert all(after > before for before, after in itertools.pairwise(decoding))
    assert (1 / fps / base).denominator == 1, "a frame is no whole number of ticks"


@pytest.mark.parametrize("fps", [NTSC, Fraction(60)], ids=str)
@pytest.mark.parametrize("preset", ["ultrafast", "slow"])
def test_pictures_come_in_their_order(make_segments, tmp_path, fps, preset):
    segments = make_segments(FRAMES, BOUNDS, fps, preset=preset, crf=0)
    path = tmp_path / "v.mp4"
    stitch(segments, None, path, fps)
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(40, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_frame_of_every_segment_decodes(make_segments, tmp_path, codec):
    """A group that leans on the one before it would lose frames at every seam."""
    segments = make_segments(FRAMES, BOUNDS, RATES[4], codec=codec, preset="fast", crf=12)
    path = tmp_path / "v.mp4"
    stitch(segments, None, path, RATES[4])
    found = np.stack(list(luma_frames(path))).reshape(40, -1).astype(int)
    error = np.abs(found - FRAMES[:, :LUMA]).mean(axis=1)
    assert error.max() < 4, "a frame is damaged or in another's place"


@pytest.mark.parametrize("bounds", [[0, 40], BOUNDS, list(range(0, 41, 8))])
def test_lossless_video_is_the_same_wherever_it_was_cut(make_segments, tmp_path, bounds):
    """A render may be cut and spread in any way: the frames must not show it."""
    path = tmp_path / "v.mp4"
    stitch(make_segments(FRAMES, bounds, RATES[0], crf=0), None, path, RATES[0])
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(40, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize(
    ("fps", "sample_rate"),
    # A frame's share of samples is whole, or not, by both.
    [*zip(RATES, [44_100, 48_000, 44_100, 48_000, 44_100], strict=True), (NTSC, 44_100)],
    ids=str,
)
def test_sound_starts_with_the_picture_and_ends_within_a_frame(
    make_segments, tmp_path, fps, sample_rate
):
    seconds = float(40 / fps)
    times = [0.1, 0.5, seconds - 0.1]
    sound = _sound(tmp_path / "s.m4a", clicks(seconds, times, sample_rate), sample_rate)
    path = tmp_path / "v.mp4"
    assert stitch(make_segments(FRAMES, BOUNDS, fps), sound, path, fps) == 40
    assert _times(path)[0] == [index / fps for index in range(40)]

    heard = decode_with_ffmpeg(path, sample_rate=sample_rate)[:, 0]
    assert len(heard) / sample_rate == pytest.approx(seconds, abs=1 / float(fps))
    wanted = clicks(seconds, times, sample_rate)
    length = min(len(heard), len(wanted))
    lags = np.arange(-300, 301)
    likeness = [np.dot(np.roll(heard[:length], lag), wanted[:length]) for lag in lags]
    assert abs(int(lags[int(np.argmax(likeness))])) <= 2, "the sound is shifted"

    report = probe(path)
    assert report.problems() == []
    assert report.audio_start_s == 0
    assert report.frames == 40
    assert report.fps == fps


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_sound_keeps_its_channels_where_aac_has_a_layout_for_them(tmp_path, num_channels):
    samples = tone(0.5, num_channels=num_channels)
    text = describe(_sound(tmp_path / "s.m4a", samples))
    layout = {1: "mono", 2: "stereo", 3: "stereo", 6: "5.1"}[num_channels]
    assert f"44100 Hz, {layout}" in text


def test_sound_that_cannot_be_encoded_is_told_in_a_line(tmp_path):
    with pytest.raises(EncodeError, match=r"encoding the sound .*ffmpeg ended with code .*No such"):
        _sound(tmp_path / "nowhere" / "s.m4a", tone(3.0))


def test_the_index_comes_first_and_colours_are_tagged(make_segments, tmp_path):
    path = tmp_path / "v.mp4"
    sound = _sound(tmp_path / "s.m4a", tone(1.0))
    stitch(make_segments(FRAMES, BOUNDS, RATES[4]), sound, path, RATES[4], Tags(title="a título"))
    boxes = _boxes(path)
    assert boxes.index(b"moov") < boxes.index(b"mdat")
    text = describe(path)
    assert "yuv420p(tv, bt709, " in text
    assert "a título" in text


def test_segments_are_read_one_at_a_time(make_segments, tmp_path):
    """A three-hour video has a thousand of them; the farm fetches each into the same file."""
    segments = make_segments(FRAMES, BOUNDS, RATES[0], crf=0)
    shared = tmp_path / "segment.mp4"

    def fetched():
        for path, count in segments:
            shared.write_bytes(path.read_bytes())
            yield shared, count

    path = tmp_path / "v.mp4"
    assert stitch(fetched(), None, path, RATES[0]) == 40
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(40, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("more", [1, -1])
def test_a_segment_without_all_its_frames_is_refused(make_segments, tmp_path, place, more):
    """One frame less and everything after it is out of step with the music."""
    segments = make_segments(FRAMES, [0, 10, 20, 30, 40], RATES[0])
    path, count = segments[place]
    segments[place] = (path, count + more)
    with pytest.raises(
        EncodeError, match=rf"segment-{place}\.mp4: (it has 10 frames|a frame lies)"
    ):
        stitch(segments, None, tmp_path / "v.mp4", RATES[0])


def test_a_segment_with_a_frame_missing_inside_is_refused(make_segments, tmp_path):
    segments = make_segments(FRAMES, [0, 20, 40], RATES[2])
    broken = silent_video(
        tmp_path / "gap.mp4", "-fps_mode", "vfr", seconds=1.0, filters="select='not(eq(n,5))'"
    )
    with pytest.raises(EncodeError, match=r"gap\.mp4"):
        stitch([segments[0], (broken, 30)], None, tmp_path / "v.mp4", RATES[2])


def test_a_segment_of_another_frame_rate_is_refused(make_segments, tmp_path):
    segments = make_segments(FRAMES, [0, 20, 40], RATES[2])
    with pytest.raises(EncodeError, match="a frame lies at"):
        stitch(segments, None, tmp_path / "v.mp4", NTSC)


@pytest.mark.parametrize("damage", [b"", b"no video", None], ids=["empty", "text", "missing"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_segment_is_told_from_other_failures(make_segments, tmp_path, damage, place):
    segments = make_segments(FRAMES, [0, 20, 40], RATES[0])
    path = segments[place][0]
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(SegmentError, match=rf"joining segment {path.name}"):
        stitch(segments, None, tmp_path / "v.mp4", RATES[0])


def test_no_segments_at_all_is_an_encode_error(tmp_path):
    with pytest.raises(EncodeError):
        stitch([], None, tmp_path / "v.mp4", RATES[0])


def test_an_output_that_cannot_be_written_is_an_encode_error(make_segments, tmp_path):
    segments = make_segments(FRAMES, [0, 20, 40], RATES[0])
    with pytest.raises(EncodeError, match="No such file or directory"):
        stitch(segments, None, tmp_path / "nowhere" / "v.mp4", RATES[0])


@pytest.mark.parametrize("name", ["a:b.mp4", "with space.mp4", "-y.mp4", "%d.mp4", "音楽.mp4"])
def test_any_name_is_only_a_name(make_segments, tmp_path, monkeypatch, name):
    segments = make_segments(FRAMES, [0, 5], RATES[0])
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, type(tmp_path)(name)):
        assert stitch(segments, None, path, RATES[0]) == 5
        (tmp_path / name).unlink()
