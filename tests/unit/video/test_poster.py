"""What is seen of a video at a glance has its colours, and is the best of it."""

import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from asha_ray.errors import EncodeError, VideoError
from asha_ray.values import PcmStream, Tags
from asha_ray.video import poster as module
from asha_ray.video.colour import rgb_to_yuv420
from asha_ray.video.poster import poster_and_strip, thumbnail
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch
from tests.media import tone, write_sound

FPS = Fraction(10)
SIZE = (64, 48)
COLOURS = [
    *((255, 40, 60), (20, 220, 255), (250, 230, 10), (120, 20, 240)),
    *((255, 255, 255), (128, 128, 128), (0, 0, 0), (10, 200, 40)),
]


def _fields(colours=COLOURS):
    """A picture `[48, 64, 3]` of two rows of four fields."""
    rows = np.asarray(colours, np.uint8).reshape(2, 4, 3)
    return rows.repeat(24, axis=0).repeat(16, axis=1)


def _plain(colour):
    return np.full((48, 64, 3), colour, np.uint8)


@pytest.fixture
def make(make_segments, tmp_path):
    """Makes a lossless video of RGB pictures, each shown for so many frames."""

    def video(pictures, frames_each=1, tags=None):
        rgb = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        frames = rgb_to_yuv420(rgb).numpy().repeat(frames_each, axis=0)
        path = tmp_path / "v.mp4"
        segments = make_segments(frames, [0, len(frames)], FPS, crf=0)
        stitch(segments, None, path, FPS, tags or Tags(), len(frames) / FPS)
        return path

    return video


def _drawn(path):
    poster, strip = path.with_name("poster.jpg"), path.with_name("strip.jpg")
    poster_and_strip(path, poster, strip)
    with Image.open(poster) as first, Image.open(strip) as second:
        assert (first.format, second.format) == ("JPEG", "JPEG")
        return np.asarray(first.convert("RGB")), np.asarray(second.convert("RGB"))


def test_colours_are_those_of_the_picture(make):
    """Read as another matrix or range, every poster of an archive would be off."""
    poster, _ = _drawn(make([_fields()], 10))
    assert poster.shape == (48, 64, 3)
    centres = poster[12::24, 8::16].reshape(-1, 3).astype(int)
    np.testing.assert_allclose(centres, COLOURS, atol=4)


@pytest.mark.parametrize("place", [0, 3, 9])
def test_the_poster_is_the_liveliest_frame(make, place):
    pictures = [_plain((0, 0, 0))] * 5 + [_plain((90, 90, 90))] * 5
    pictures[place] = _fields()
    poster, _ = _drawn(make(pictures, 3))
    np.testing.assert_allclose(poster[12, 8].astype(int), COLOURS[0], atol=4)


@pytest.mark.parametrize("other", [(60, 60, 60), (40, 0, 0)], ids=["grey", "dark-red"])
def test_the_poster_is_not_black_where_anything_else_is(make, other):
    poster, _ = _drawn(make([_plain((0, 0, 0)), _plain(other), _plain((0, 0, 0))], 10))
    np.testing.assert_allclose(poster[24, 32].astype(int), other, atol=4)


def test_a_black_video_has_a_black_poster(make):
    poster, strip = _drawn(make([_plain((0, 0, 0))], 5))
    assert poster.max() <= 2
    assert strip.shape[0] == 180


def test_the_strip_shows_the_whole_in_order(make):
    """Eight eighths of a video, each by a frame of its own, on the ground of a dark page."""
    shades = [(30 * index + 20,) * 3 for index in range(8)]
    _, strip = _drawn(make([_plain(shade) for shade in shades], 3))
    assert strip.shape == (180, 8 * 240 + 7 * 4, 3)
    middles = strip[90, 120::244].astype(int)
    np.testing.assert_allclose(middles, shades, atol=3)
    np.testing.assert_allclose(strip[90, 242].astype(int), (11, 11, 18), atol=6)


def test_of_a_long_video_keyframes_are_taken_from_all_of_it(make, monkeypatch):
    monkeypatch.setattr(module, "EXACT_S", 1.0)
    shades = [(30 * index + 20,) * 3 for index in range(8)]
    path = make([_plain(shade) for shade in shades], 20)  # a keyframe begins each
    _, strip = _drawn(path)
    np.testing.assert_allclose(strip[90, 120::244].astype(int), shades, atol=3)


def test_a_video_of_one_frame_has_both(make):
    poster, strip = _drawn(make([_fields()]))
    assert poster.shape == (48, 64, 3)
    assert strip.shape == (180, 8 * 240 + 7 * 4, 3)


def test_a_cover_is_not_the_video(make):
    buffer = io.BytesIO()
    Image.new("RGB", (90, 90), (255, 0, 255)).save(buffer, "PNG")
    poster, _ = _drawn(make([_plain((0, 60, 0))], 5, Tags(artwork=buffer.getvalue())))
    np.testing.assert_allclose(poster[24, 32].astype(int), (0, 60, 0), atol=4)


def test_a_wide_video_has_a_poster_that_is_not(make, monkeypatch):
    monkeypatch.setattr(module, "POSTER_WIDTH", 32)
    poster, _ = _drawn(make([_fields()], 2))
    assert poster.shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("size", "expected"), [((1280, 720), (160, 90)), ((700, 1400), (80, 160)), ((40, 30), (40, 30))]
)
def test_a_thumbnail_is_small_whatever_it_shows(tmp_path, size, expected):
    """A page holds one for each show; noise is the hardest to make small."""
    noise = np.random.default_rng(1).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3))
    picture = Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    path = tmp_path / "poster.jpg"
    picture.save(path, quality=88)
    content = thumbnail(path)
    assert len(content) < 6000
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        assert all(side <= most for side, most in zip(image.size, expected, strict=True))
        assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_plain_poster_keeps_its_width(tmp_path):
    Image.new("RGB", (640, 360), (200, 30, 90)).save(tmp_path / "p.jpg")
    with Image.open(io.BytesIO(thumbnail(tmp_path / "p.jpg"))) as image:
        assert image.size == (160, 90)


def _sound_only(path):
    encode_audio(PcmStream(44_100, 1, iter([tone(0.2).reshape(-1, 1)])), path)


BROKEN = {
    "missing": lambda path: None,
    "text": lambda path: path.write_text("a letter\n" * 99),
    "sound-only": _sound_only,
    "wav": lambda path: write_sound(path, tone(0.2), format="WAV"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_video_is_refused_in_a_line(tmp_path, kind):
    path = tmp_path / "v.mp4"
    BROKEN[kind](path)
    with pytest.raises(VideoError, match=r"drawing .*v\.mp4: no frame of it") as told:
        poster_and_strip(path, tmp_path / "p.jpg", tmp_path / "s.jpg")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "p.jpg").exists()


def test_a_poster_that_cannot_be_written_is_an_encode_error(make, tmp_path):
    with pytest.raises(EncodeError, match=r"p\.jpg cannot be written"):
        poster_and_strip(make([_fields()]), tmp_path / "nowhere" / "p.jpg", tmp_path / "s.jpg")


def test_a_poster_that_is_none_is_refused(tmp_path):
    (tmp_path / "p.jpg").write_text("no picture")
    with pytest.raises(VideoError, match=r"reading poster .*p\.jpg: it is no JPEG"):
        thumbnail(tmp_path / "p.jpg")
