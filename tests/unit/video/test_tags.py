"""Tags, chapters and a cover are read back from the video, and change no frame of it."""

import io
from fractions import Fraction

import av
import pytest
from PIL import Image

from asha_ray.values import MAX_ARTWORK_BYTES, Chapter, PcmStream, Tags
from asha_ray.video.probe import probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch
from asha_ray.video.tags import tags_from
from tests.media import describe, silent_video, tone
from tests.unit.video.conftest import SIZE

FPS = Fraction(30)
DURATION_S = Fraction(2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A segment of two seconds, and their sound."""
    folder = tmp_path_factory.mktemp("parts")
    picture, sound = folder / "picture.mp4", folder / "sound.m4a"
    silent_video(picture, "-preset", "ultrafast", seconds=2)
    encode_audio(PcmStream(44_100, 1, iter([tone(2).reshape(-1, 1)])), sound)
    return picture, sound


def _video(parts, path, tags):
    picture, sound = parts
    assert stitch([(picture, 60)], sound, path, FPS, tags, DURATION_S) == 60
    return path


def _chapters(path):
    with av.open(str(path)) as container:
        return [
            (item["start"] / 1000, item["end"] / 1000, item["metadata"]["title"])
            for item in container.chapters()
        ]


def _picture(kind, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 40, 90)).save(buffer, kind)
    return buffer.getvalue()


def _noise(kind):
    """A picture whose last bytes matter."""
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 90).save(buffer, kind)
    return buffer.getvalue()


def test_what_a_video_says_of_itself_is_read_back(parts, tmp_path):
    tags = Tags("Nacht — 夜", "Ein Künstler", "Sendung", "2023-05-01")
    path = _video(parts, tmp_path / "v.mp4", tags)
    with av.open(str(path)) as container:
        told = container.metadata
    assert [told[name] for name in ("title", "artist", "album", "date")] == [
        *("Nacht — 夜", "Ein Künstler", "Sendung", "2023-05-01")
    ]
    assert "Nacht — 夜" in describe(path)


def test_nothing_is_said_where_nothing_is_known(parts, tmp_path):
    path = _video(parts, tmp_path / "v.mp4", Tags())
    with av.open(str(path)) as container:
        assert not {"title", "artist", "album", "date"} & set(container.metadata)
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert _chapters(path) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(0, "a"), (0.5, "b")], [(0, 0.5, "a"), (0.5, 2, "b")]),
        ([(0.5, "b")], [(0, 0.5, "The show"), (0.5, 2, "b")]),
        ([(0, "a"), (1.25, "b"), (2, "late"), (9, "later")], [(0, 1.25, "a"), (1.25, 2, "b")]),
        ([(0, "a"), (1, "twice"), (1, "b")], [(0, 1, "a"), (1, 2, "b")]),
    ],
    ids=["two", "late-first", "beyond-the-end", "at-once"],
)
def test_chapters_are_read_back_where_they_begin(parts, tmp_path, given, expected):
    """A listener who chooses a track must come to it; the last ends with the video."""
    chapters = tuple(Chapter(start_s, title) for start_s, title in given)
    path = _video(parts, tmp_path / "v.mp4", Tags(title="The show", chapters=chapters))
    assert _chapters(path) == expected
    for _, _, title in expected:
        assert f": {title}\n" in describe(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cover_is_a_cover_and_not_the_video(parts, tmp_path, kind):
    artwork = _picture(kind)
    path = _video(parts, tmp_path / "v.mp4", Tags(artwork=artwork))
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "video"]
        cover = container.streams[2]
        assert cover.disposition == av.stream.Disposition.attached_pic
        found = [bytes(packet) for packet in container.demux(cover) if packet.size]
    assert found == [artwork]
    assert "(attached pic)" in describe(path)
    assert probe(path).size == SIZE


@pytest.mark.parametrize(
    "artwork",
    [
        b"",
        b"no picture",
        _picture("GIF"),
        _picture("PNG")[:20],
        _noise("PNG")[:-200],
        _noise("JPEG")[:-200],
        _picture("PNG", (9000, 1)),
        _picture("PNG", (8000, 5000)),
        _picture("PNG") + bytes(MAX_ARTWORK_BYTES),
    ],
    ids=str.split("none text other-kind torn-head torn-png torn-jpeg wide many-pixels many-bytes"),
)
def test_artwork_that_is_no_cover_is_left_out(parts, tmp_path, artwork):
    """Whatever a sound file brings along, its video appears."""
    path = _video(parts, tmp_path / "v.mp4", Tags(artwork=artwork))
    with av.open(str(path)) as container:
        assert len(container.streams) == 2


def test_with_all_tags_times_are_exact_and_the_index_comes_first(parts, tmp_path):
    chapters = (Chapter(0, "a"), Chapter(0.7, "b"))
    tags = Tags("t", "a", "b", "2020", chapters, _picture("JPEG"))
    report = probe(_video(parts, tmp_path / "v.mp4", tags))
    assert report.problems() == []
    assert report.frames == report.pictures.num_decoded == 60
    assert report.timestamp_steps == {Fraction(1): 59}


@pytest.mark.parametrize("name", ["torn\udc80name", "null\0byte"], ids=["surrogate", "null"])
def test_any_text_is_only_text(parts, tmp_path, name):
    """Names of files may hold bytes that no text has."""
    tags = Tags(title=name, chapters=(Chapter(0, name), Chapter(1, "b")))
    path = _video(parts, tmp_path / "v.mp4", tags)
    title = name.replace("\0", "").replace("\udc80", "?")
    assert _chapters(path)[0] == (0, 1, title)


def test_chapters_of_a_part_are_counted_from_its_beginning():
    given = (Chapter(0, "a"), Chapter(10, "b"), Chapter(25.5, "c"))
    found = tags_from(Tags(title="t", chapters=given), Fraction(20))
    assert found == Tags(title="t", chapters=(Chapter(0, "b"), Chapter(5.5, "c")))
    assert tags_from(Tags(chapters=given), Fraction(0)).chapters == given
