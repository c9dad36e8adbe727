"""The finished video: every frame exactly one frame after the last, and sound that fits it."""

import itertools
import struct

import av
import numpy as np
import pytest

from asha_ray.errors import EncodeError, SegmentError
from asha_ray.values import PcmStream, Tags
from asha_ray.video.probe import luma_frames, probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch
from tests.media import clicks, decode_with_ffmpeg, describe, silent_video, tone
from tests.unit.video.conftest import NTSC, RATES, SIZE, moving_frames

NUM_FRAMES = 25
FRAMES = moving_frames(NUM_FRAMES)
BOUNDS = [0, 9, 10, NUM_FRAMES]
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


REORDERED = (
    *(("libx264", preset) for preset in ("veryfast", "veryslow")),
    *(("libx265", preset) for preset in ("veryfast", "slow")),
    ("libsvtav1", "medium"),
)
CRF = 12


# The preset decides which frames are decoded before their time, the rate what a frame is in ticks:
# each order of packets is joined at the hardest rate, each rate with one of them, and each encoder
# at two rates.
@pytest.mark.parametrize(
    ("fps", "codec", "preset"),
    [
        *((fps, "libx264", "veryfast") for fps in RATES),
        *((NTSC, *kind) for kind in REORDERED[1:]),
        (RATES[4], "libx265", "veryfast"),
        (RATES[4], "libsvtav1", "medium"),
    ],
    ids=str,
)
def test_every_frame_is_exactly_one_frame_after_the_last(
    make_segments, tmp_path, fps, codec, preset
):
    """Joined by their own times, segments leave a jerk at every seam (507 ticks for 512)."""
    segments = make_segments(FRAMES, BOUNDS, fps, preset=preset, codec=codec, crf=CRF)
    path = tmp_path / "v.mp4"
    assert stitch(segments, None, path, fps) == NUM_FRAMES
    display, decoding, base = _times(path)
    assert display == [index / fps for index in range(NUM_FRAMES)]
    assert all(after > before for before, after in itertools.pairwise(decoding))
    assert (1 / fps / base).denominator == 1, "a frame is no whole number of ticks"


def test_pictures_come_in_their_order(make_segments, tmp_path):
    segments = make_segments(FRAMES, BOUNDS, NTSC, preset="slow", crf=0)
    path = tmp_path / "v.mp4"
    stitch(segments, None, path, NTSC)
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(NUM_FRAMES, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize(("codec", "preset"), REORDERED)
def test_every_frame_of_every_segment_decodes(make_segments, tmp_path, codec, preset):
    """A group that leans on the one before it would lose frames at every seam."""
    segments = make_segments(FRAMES, BOUNDS, NTSC, codec=codec, preset=preset, crf=CRF)
    path = tmp_path / "v.mp4"
    stitch(segments, None, path, NTSC)
    found = np.stack(list(luma_frames(path))).reshape(NUM_FRAMES, -1).astype(int)
    error = np.abs(found - FRAMES[:, :LUMA]).mean(axis=1)
    assert error.max() < 4, "a frame is damaged or in another's place"


@pytest.mark.parametrize("bounds", [[0, NUM_FRAMES], BOUNDS, [0, 8, 16, NUM_FRAMES]])
def test_lossless_video_is_the_same_wherever_it_was_cut(make_segments, tmp_path, bounds):
    """A render may be cut and spread in any way: the frames must not show it."""
    path = tmp_path / "v.mp4"
    stitch(make_segments(FRAMES, bounds, RATES[0], crf=0), None, path, RATES[0])
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(NUM_FRAMES, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize(
    ("fps", "sample_rate"),
    # A frame's share of samples is whole, or not, by both.
    [*zip(RATES, [44_100, 48_000, 44_100, 48_000, 44_100], strict=True), (NTSC, 44_100)],
    ids=str,
)
def test_sound_starts_with_the_picture_and_ends_within_a_frame(
    make_segments, tmp_path, fps, sample_rate
):
    seconds = float(NUM_FRAMES / fps)
    wanted = clicks(seconds, [0.1, seconds - 0.1], sample_rate)
    sound = _sound(tmp_path / "s.m4a", wanted, sample_rate)
    path = tmp_path / "v.mp4"
    segments = make_segments(FRAMES, BOUNDS, fps, preset="veryfast", crf=CRF)
    assert stitch(segments, sound, path, fps) == NUM_FRAMES
    assert _times(path)[0] == [index / fps for index in range(NUM_FRAMES)]

    heard = decode_with_ffmpeg(path, sample_rate=sample_rate)[:, 0]
    assert len(heard) / sample_rate == pytest.approx(seconds, abs=1 / float(fps))
    length = min(len(heard), len(wanted))
    likeness = np.correlate(heard[:length], wanted[300 : length - 300], "valid")
    assert abs(int(np.argmax(likeness)) - 300) <= 2, "the sound is shifted"

    report = probe(path)
    assert report.problems() == []
    assert report.audio_start_s == 0
    assert report.frames == NUM_FRAMES
    assert report.fps == fps


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_sound_keeps_its_channels_where_aac_has_a_layout_for_them(tmp_path, num_channels):
    samples = tone(0.1, num_channels=num_channels)
    text = describe(_sound(tmp_path / "s.m4a", samples))
    layout = {1: "mono", 2: "stereo", 3: "stereo", 6: "5.1"}[num_channels]
    assert f"44100 Hz, {layout}" in text


def test_sound_that_cannot_be_encoded_is_told_in_a_line(tmp_path):
    with pytest.raises(EncodeError, match=r"encoding the sound .*ffmpeg ended with code .*No such"):
        _sound(tmp_path / "nowhere" / "s.m4a", tone(3.0))


def test_the_index_comes_first_and_colours_are_tagged(make_segments, tmp_path):
    path = tmp_path / "v.mp4"
    sound = _sound(tmp_path / "s.m4a", tone(0.4))
    segments = make_segments(FRAMES, BOUNDS, RATES[4], preset="veryfast", crf=CRF)
    stitch(segments, sound, path, RATES[4], Tags(title="a título"))
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
    assert stitch(fetched(), None, path, RATES[0]) == NUM_FRAMES
    found = np.stack(list(luma_frames(path)))
    np.testing.assert_array_equal(found.reshape(NUM_FRAMES, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("more", [1, -1])
def test_a_segment_without_all_its_frames_is_refused(make_segments, tmp_path, place, more):
    """One frame less and everything after it is out of step with the music."""
    segments = make_segments(FRAMES, BOUNDS, RATES[0], crf=0)
    path, count = segments[place]
    segments[place] = (path, count + more)
    with pytest.raises(
        EncodeError, match=rf"segment-{place}\.mp4: (it has {count} frames|a frame lies)"
    ):
        stitch(segments, None, tmp_path / "v.mp4", RATES[0])


def test_a_segment_with_a_frame_missing_inside_is_refused(make_segments, tmp_path):
    segments = make_segments(FRAMES, BOUNDS, RATES[2])
    broken = silent_video(tmp_path / "gap.mp4", "-fps_mode", "vfr", filters="select='not(eq(n,5))'")
    with pytest.raises(EncodeError, match=r"gap\.mp4"):
        stitch([segments[0], (broken, 12)], None, tmp_path / "v.mp4", RATES[2])


def test_a_segment_of_another_frame_rate_is_refused(make_segments, tmp_path):
    segments = make_segments(FRAMES, BOUNDS, RATES[2])
    with pytest.raises(EncodeError, match="a frame lies at"):
        stitch(segments, None, tmp_path / "v.mp4", NTSC)


@pytest.mark.parametrize("damage", [b"", b"no video", None], ids=["empty", "text", "missing"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_segment_is_told_from_other_failures(make_segments, tmp_path, damage, place):
    segments = make_segments(FRAMES, BOUNDS, RATES[0], crf=0)
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
    segments = make_segments(FRAMES, BOUNDS, RATES[0], crf=0)
    with pytest.raises(EncodeError, match="No such file or directory"):
        stitch(segments, None, tmp_path / "nowhere" / "v.mp4", RATES[0])


@pytest.mark.parametrize("name", ["a:b.mp4", "with space.mp4", "-y.mp4", "%d.mp4", "音楽.mp4"])
def test_any_name_is_only_a_name(make_segments, tmp_path, monkeypatch, name):
    segments = make_segments(FRAMES, BOUNDS, RATES[0], crf=0)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, type(tmp_path)(name)):
        assert stitch(segments, None, path, RATES[0]) == NUM_FRAMES
        (tmp_path / name).unlink()
