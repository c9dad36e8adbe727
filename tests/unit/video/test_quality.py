"""The check of a finished video: what is odd is found where it is, and art is not odd."""

from dataclasses import replace

import pytest

from asha_ray.errors import VideoError
from asha_ray.video import quality
from asha_ray.video.quality import Quality, check_quality
from tests.media import run_ffmpeg, silent_video, tone, write_sound

FPS = 10
QUICK = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "20", "-pix_fmt", "yuv420p")
MOVING = f"testsrc=size=64x48:rate={FPS}"


def _video(path, picture, sound="sine=440:sample_rate=8000", seconds=3, crf=23):
    """A video of lavfi sources; a sound of few samples is soon encoded and listened to."""
    arguments = [part for source in (picture, sound) for part in ("-f", "lavfi", "-i", source)]
    length = ("-t", str(seconds))
    run_ffmpeg(*arguments, *length, *QUICK, "-crf", str(crf), "-c:a", "aac", f"file:{path}")
    return path


def _near(stretches, expected):
    assert len(stretches) == len(expected), stretches
    for found, wanted in zip(stretches, expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.15)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return _video(tmp_path_factory.mktemp("good") / "v.mp4", MOVING, seconds=6)


def test_of_a_good_video_there_is_nothing_to_say(good):
    found = check_quality(good, duration_s=6.0)
    assert found.problems() == []
    assert found.plays
    assert (found.frames, found.decoded, found.errors) == (60, 60, ())
    assert (found.black, found.frozen, found.silent) == ((), (), ())


def test_loudness_and_peak_are_those_of_the_sound(tmp_path):
    """A sine of 1 kHz on both channels that peaks at -20 dBFS has -20 LUFS (EBU Tech 3341)."""
    path = _video(tmp_path / "v.mp4", MOVING, "aevalsrc=0.1*sin(2*PI*997*t)|0.1*sin(2*PI*997*t)")
    found = check_quality(path, duration_s=3.0)
    assert found.loudness_lufs == pytest.approx(-20.0, abs=0.2)
    assert found.true_peak_dbfs == pytest.approx(-20.0, abs=1.0)  # AAC swings over at its start


def test_what_is_black_still_and_silent_is_found_where_it_is(tmp_path):
    """What a person should look at must be named by the second, or nobody will find it."""
    picture = (
        f"{MOVING},drawbox=c=black:t=fill:enable='between(t,1,3.95)',"
        f"loop=loop=30:size=1:start=80,setpts=N/{FPS}/TB"
    )
    sound = "aevalsrc=0.3*sin(2*PI*440*t)*(lt(t\\,2)+gt(t\\,8)):s=8000"
    found = check_quality(_video(tmp_path / "v.mp4", picture, sound, 15), duration_s=15.0)
    _near(found.black, [(1, 4)])
    _near(found.frozen, [(1, 4), (8, 11)])
    _near(found.silent, [(2, 8)])
    assert found.plays
    assert found.problems() == [
        "the picture is black from 1.0 to 4.0 s",
        "the picture stands still from 7.9 to 11.0 s",
        "nothing is heard from 2.0 to 8.0 s",
    ]


def test_a_bright_form_on_black_is_not_black(tmp_path):
    """Many models paint so; a third of a percent of the picture is enough to be something."""
    picture = f"color=black:size=64x48:rate={FPS},drawbox=x=20:y=20:w=4:h=3:c=red:t=fill"
    found = check_quality(_video(tmp_path / "v.mp4", picture), duration_s=3.0)
    assert found.black == ()


def test_a_picture_that_moves_slowly_does_not_stand_still(tmp_path):
    # A wave that takes two minutes; ffmpeg's own `gradients` are other ones in each run.
    wave = "geq=lum='128+100*sin((X+Y)/20+T/20)':cb=128:cr=128"
    picture = f"nullsrc=size=64x48:rate={FPS},{wave}"
    found = check_quality(_video(tmp_path / "v.mp4", picture), duration_s=3.0)
    assert found.frozen == ()


def test_a_still_picture_is_one_stretch_over_all_keyframes(tmp_path):
    """An encoder changes a still picture a little with every keyframe."""
    picture = (
        f"testsrc2=size=64x48:rate={FPS},trim=end_frame=1,loop=loop=-1:size=1,setpts=N/{FPS}/TB"
    )
    path = _video(tmp_path / "v.mp4", picture, seconds=7, crf=18)
    found = check_quality(path, duration_s=7.0)
    _near(found.frozen, [(0, 7)])


def test_frames_that_do_not_decode_are_counted(good, tmp_path):
    """Half of an upload has its whole index where that comes first."""
    whole = tmp_path / "whole.mp4"
    run_ffmpeg("-i", good, "-c", "copy", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    half = tmp_path / "half.mp4"
    half.write_bytes(data[: len(data) * 6 // 10])
    found = check_quality(half, duration_s=6.0)
    assert not found.plays
    missing = 60 - found.decoded
    assert 0 < missing < 60
    assert f"{missing} of 60 frames do not decode" in found.problems()
    assert found.num_errors
    assert len(found.errors) <= quality.MAX_ERRORS


def test_damage_within_is_a_complaint_of_the_decoder(good, tmp_path):
    data = bytearray(good.read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 3000] = bytes(3000)
    path = tmp_path / "v.mp4"
    path.write_bytes(data)
    found = check_quality(path, duration_s=6.0)
    assert not found.plays
    assert any(text.startswith("the decoder complains ") for text in found.problems())


def test_a_video_without_sound_has_no_loudness(tmp_path):
    found = check_quality(silent_video(tmp_path / "v.mp4"), duration_s=0.4)
    assert (found.decoded, found.loudness_lufs, found.true_peak_dbfs) == (12, None, None)
    assert found.problems() == []


def test_silence_has_no_loudness(tmp_path):
    path = _video(tmp_path / "v.mp4", MOVING, "anullsrc=r=8000:cl=stereo", 6)
    found = check_quality(path, duration_s=6.0)
    assert (found.loudness_lufs, found.true_peak_dbfs) == (None, None)
    _near(found.silent, [(0, 6)])


WHOLE = Quality(frames=10, decoded=10, duration_s=3600.0)


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"silent": ((0.0, 29.0), (3571.0, 3600.0))}, []),
        ({"silent": ((0.0, 31.0),)}, ["nothing is heard from 0.0 to 31.0 s"]),
        ({"silent": ((3560.0, 3600.0),)}, ["nothing is heard from 3560.0 to 3600.0 s"]),
        ({"silent": ((60.0, 66.0),)}, ["nothing is heard from 60.0 to 66.0 s"]),
        (
            {"black": ((5.0, 9.0),), "frozen": ((5.0, 9.05), (20.0, 23.0))},
            [
                "the picture is black from 5.0 to 9.0 s",
                "the picture stands still from 20.0 to 23.0 s",
            ],
        ),
        ({"decoded": 7}, ["3 of 10 frames do not decode"]),
        ({"num_errors": 1, "errors": ("bad",)}, ["the decoder complains once: bad"]),
        ({"num_more": 4}, ["there are 4 more such stretches than were kept"]),
    ],
    ids=["edges", "long-lead", "long-end", "within", "black", "missing", "error", "more"],
)
def test_what_is_worth_a_look_is_a_sentence(changes, problems):
    found = replace(WHOLE, **changes)
    assert found.problems() == problems
    assert found.plays == (not {"decoded", "num_errors"} & set(changes))


def test_of_many_stretches_the_first_are_named_and_the_rest_counted():
    black = tuple((float(at), at + 3.0) for at in range(0, 80, 10))
    problems = replace(WHOLE, black=black).problems()
    assert len(problems) == 6
    assert problems[-1] == "the picture is black 3 times more"


def test_stretches_beyond_the_first_are_counted(monkeypatch):
    """A video of a thousand hours' archive must not have a record of megabytes."""
    monkeypatch.setattr(quality, "MAX_STRETCHES", 2)
    lines = [
        f"[Parsed_blackdetect_0 @ 0x1] [info] black_start:{at} black_end:{at + 3} black_duration:3"
        for at in range(0, 50, 10)
    ]
    found = quality._read(iter(lines), 60.0).black
    assert found.kept == [(0, 3), (10, 13)]
    assert found.num_more == 3


def test_what_a_recording_says_of_itself_is_no_finding():
    """Its title comes into the same log, and anybody may have written it."""
    said = [
        "[info]     title           : black_start:0 black_end:99 black_duration:99",
        "[info]     title           : [error] all is lost",
        "[info]     comment         : silence_start: 1",
        "[info]                     : I: -3.0 LUFS",
    ]
    found = quality._read(iter(said), 99.0)
    assert (found.black.kept, found.silent.kept, found.num_errors) == ([], [], 0)
    assert found.loudness_lufs is None


BROKEN = {
    "missing": lambda path: None,
    "text": lambda path: path.write_text("a letter\n" * 99),
    "sound-only": lambda path: write_sound(path, tone(0.2), format="WAV"),
    "playlist": lambda path: path.write_text("ffconcat version 1.0\nfile 'other.mp4'\n"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_video_is_refused_in_a_line(good, tmp_path, kind):
    path = tmp_path / "v.mp4"
    BROKEN[kind](path)
    with pytest.raises(VideoError, match=r"checking .*v\.mp4: it is no video") as told:
        check_quality(path, duration_s=1.0)
    assert "\n" not in str(told.value)
