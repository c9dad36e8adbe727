"""Segments: every frame, closed groups, tagged colours, and failures that end and say why."""

import itertools
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from asha_ray.errors import EncodeError
from asha_ray.video.encode import encode_segment
from asha_ray.video.probe import luma_frames
from tests.media import describe
from tests.unit.video.conftest import NTSC, RATES, SIZE, moving_frames, settings

FRAMES = moving_frames(20)
LUMA = SIZE[0] * SIZE[1]
DEADLINE_S = 15
CPU_CODECS = ["libx264", "libx265", "libsvtav1"]


def _packets(path):
    with av.open(str(path)) as source:
        packets = [p for p in source.demux(video=0) if p.size]
        return [(p.pts * p.time_base, p.is_keyframe) for p in packets]


# The rate is written into the file in one way for all encoders; its own times each makes anew.
@pytest.mark.parametrize(
    ("codec", "fps"),
    [*(("libx264", fps) for fps in RATES), ("libx265", NTSC), ("libsvtav1", NTSC)],
    ids=str,
)
def test_a_segment_has_every_frame_one_frame_apart(encoded, fps, codec):
    packets = _packets(encoded(FRAMES, fps, SIZE, codec=codec))
    assert len(packets) == 20
    times = sorted(time for time, _ in packets)
    assert [time - times[0] for time in times] == [index / fps for index in range(20)]
    assert packets[0][1], "it does not begin with a keyframe"


@pytest.mark.parametrize("codec", CPU_CODECS)
def test_a_segment_carries_the_colour_of_its_frames_and_no_sound(encoded, codec):
    """Untagged video is shown with BT.601 by some players: reds turn orange."""
    text = describe(encoded(FRAMES, NTSC, SIZE, codec=codec))
    assert "yuv420p(tv, bt709, " in text
    assert "64x48" in text
    assert "Audio" not in text
    assert {"libx264": "avc1", "libx265": "hvc1", "libsvtav1": "av01"}[codec] in text


@pytest.mark.parametrize("codec", CPU_CODECS)
def test_groups_of_pictures_are_closed_and_two_seconds_long(tmp_path, codec):
    path = tmp_path / "s.mp4"
    frames = [FRAMES, FRAMES]
    encode_segment(frames, path, SIZE, Fraction(8), settings(preset="medium", codec=codec))
    keyframes = [time for time, is_key in _packets(path) if is_key]
    assert len(keyframes) >= 3
    assert max(b - a for a, b in itertools.pairwise(keyframes)) <= 2


@pytest.mark.parametrize("bounds", [[0, 20], [0, 1, 20], [0, 7, 8, 20]])
def test_lossless_segments_give_back_the_same_pictures_wherever_they_are_cut(make_segments, bounds):
    segments = make_segments(FRAMES, bounds, RATES[4], crf=0)
    found = np.concatenate([np.stack(list(luma_frames(path))) for path, _ in segments])
    np.testing.assert_array_equal(found.reshape(20, -1), FRAMES[:, :LUMA])


@pytest.mark.parametrize("codec", CPU_CODECS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_frames_give_the_same_file(encoded, tmp_path, codec, threads):
    """Work is addressed by content: a segment that is made again must be the same bytes."""
    changes = {"codec": codec} if threads == 1 else {"codec": codec, "threads": threads}
    before, path = encoded(FRAMES, NTSC, SIZE, **changes), tmp_path / "again.mp4"
    batches = [FRAMES[at : at + 3] for at in range(0, 20, 3)]
    encode_segment(batches, path, SIZE, NTSC, settings(**changes))
    assert path.read_bytes() == before.read_bytes()


@pytest.mark.parametrize("name", ["a:b.mp4", "with space.mp4", "-y.mp4", "%03d.mp4", "音楽.mp4"])
def test_any_name_is_only_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    encode_segment([FRAMES[:2]], Path(name), SIZE, RATES[0], settings())
    assert (tmp_path / name).stat().st_size > 500


def _within_deadline(work):
    """Runs `work` in a thread, and returns what it raised; a hang is a failure, not a wait."""
    raised = []

    def run():
        try:
            work()
        except Exception as error:  # noqa: BLE001 (whatever it is, the test looks at it)
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


MISTAKES = {
    "no-such-folder": ({}, "nowhere/s.mp4", "No such file or directory"),
    "bad-preset": ({"preset": "warp"}, "s.mp4", "warp|preset"),
    "disk-full": ({}, "/dev/full", "No space left|Illegal seek|not supported"),
    "bad-codec": ({"codec": "libx999"}, "s.mp4", "libx999"),
}


@pytest.mark.parametrize("num_batches", [1, 400], ids=["short", "long"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_when_ffmpeg_fails_its_last_words_are_told_and_nothing_hangs(
    tmp_path, mistake, num_batches
):
    """ffmpeg's end breaks the pipe; a feeder that stops reading its queue would block for ever."""
    changes, name, words = MISTAKES[mistake]
    batches = (FRAMES for _ in range(num_batches))
    error = _within_deadline(
        lambda: encode_segment(batches, tmp_path / name, SIZE, RATES[0], settings(**changes))
    )
    assert isinstance(error, EncodeError)
    text = str(error)
    assert text.startswith("encoding ")
    assert f"64x48 with {changes.get('codec', 'libx264')}: ffmpeg ended with code " in text
    assert any(word in text for word in words.split("|")), text
    assert "\n" not in text


def test_a_decoder_that_fails_ends_the_encoder(tmp_path):
    """Its own error must come through, and no ffmpeg must be left waiting for frames."""

    def batches():
        yield FRAMES
        raise RuntimeError("out of memory")

    error = _within_deadline(
        lambda: encode_segment(batches(), tmp_path / "s.mp4", SIZE, RATES[0], settings())
    )
    assert isinstance(error, RuntimeError)
    assert str(error) == "out of memory"


ODD_BATCHES = {
    "not-contiguous": lambda: np.asfortranarray(FRAMES),
    "empty": lambda: FRAMES[:0],
    "read-only": lambda: np.frombuffer(FRAMES.tobytes(), np.uint8).reshape(FRAMES.shape),
}


@pytest.mark.parametrize("kind", ODD_BATCHES)
def test_an_odd_batch_is_encoded_or_refused_but_never_hangs(tmp_path, kind):
    """An error in the feeding thread leaves a full queue that nobody empties."""
    path = tmp_path / "s.mp4"
    given = [ODD_BATCHES[kind](), *([FRAMES] * 10)]
    expected = sum(len(batch) for batch in given)
    error = _within_deadline(lambda: encode_segment(given, path, SIZE, RATES[0], settings()))
    assert error is None or isinstance(error, EncodeError)
    if error is None:
        assert len(_packets(path)) == expected


def test_frames_of_a_wrong_size_are_not_passed_as_others(tmp_path):
    """Bytes that are no whole number of frames would shear every later picture."""
    path = tmp_path / "s.mp4"
    wrong = np.zeros((20, LUMA), np.uint8)
    error = _within_deadline(lambda: encode_segment([wrong], path, SIZE, RATES[0], settings()))
    assert isinstance(error, EncodeError) or len(_packets(path)) != 20
