"""Tags of real files in the formats that archives hold, and of files that lie."""

import base64
import struct
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from asha_ray.audio.tags import read_tags
from asha_ray.values import MAX_ARTWORK_BYTES, Chapter, Tags
from tests.media import run_ffmpeg, tone, write_sound

CONTAINERS = ["mp3", "m4a", "flac", "ogg", "opus", "mka", "wav", "aiff"]
META = """;FFMETADATA1
title=The Night\\
Shift
artist=Åsa
album=Radio
date=20230501
[CHAPTER]
TIMEBASE=1/1000
START=0
END=500
title=One
[CHAPTER]
TIMEBASE=1/1000
START=500
END=1000
title=Two
"""


def picture(kind: str, colour: tuple[int, int, int] = (200, 30, 90)) -> bytes:
    data = BytesIO()
    Image.new("RGB", (32, 32), colour).save(data, kind)
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sound, tags and pictures, to be put together."""
    path = tmp_path_factory.mktemp("tags")
    write_sound(path / "plain.wav", tone(1, 8000), 8000)
    write_sound(path / "plain.flac", tone(1, 8000), 8000)
    (path / "meta.txt").write_text(META)
    (path / "cover.jpg").write_bytes(picture("JPEG"))
    (path / "cover.png").write_bytes(picture("PNG"))
    return path


def tagged(folder: Path, name: str, *options: str | Path) -> Path:
    target = folder / name
    given = ("-i", folder / "plain.wav", "-i", folder / "meta.txt")
    run_ffmpeg(*given, *options, "-map_metadata", "1", "-map_chapters", "1", target)
    return target


def flac_with(folder: Path, name: str, *comments: bytes, pictures: tuple[bytes, ...] = ()) -> Path:
    """A FLAC file with these comments, byte for byte, and METADATA_BLOCK_PICTUREs."""
    plain = (folder / "plain.flac").read_bytes()
    info = b"\x00" + plain[5:42]  # STREAMINFO, not the last block
    at, last = 4, False
    while not last:
        last = bool(plain[at] & 0x80)
        at += 4 + int.from_bytes(plain[at + 1 : at + 4])
    body = struct.pack("<II", 0, len(comments))
    body += b"".join(struct.pack("<I", len(comment)) + comment for comment in comments)
    blocks = b"".join(b"\x06" + len(data).to_bytes(3) + data for data in pictures)
    blocks += b"\x84" + len(body).to_bytes(3) + body
    target = folder / name
    target.write_bytes(plain[:4] + info + blocks + plain[at:])
    return target


def flac_picture(kind: int, data: bytes, mime: bytes = b"image/png") -> bytes:
    fields = struct.pack(">II", kind, len(mime)) + mime
    return fields + struct.pack(">IIIIII", 0, 32, 32, 24, 0, len(data)) + data


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_says_its_title(folder, container):
    found = read_tags(tagged(folder, f"titled.{container}", "-map", "0:a"))

    assert found.title == "The Night Shift"
    if container != "aiff":  # ffmpeg writes no more there
        assert (found.artist, found.album, found.date) == ("Åsa", "Radio", "2023-05-01")


@pytest.mark.parametrize("container", ["mp3", "m4a", "mka"])
def test_chapters_are_read(folder, container):
    found = read_tags(tagged(folder, f"chapters.{container}", "-map", "0:a"))

    assert found.chapters == (Chapter(0.0, "One"), Chapter(0.5, "Two"))


@pytest.mark.parametrize("container", ["mp3", "m4a", "mka"])
def test_chapters_without_titles_are_numbered(folder, container):
    (folder / "untitled.txt").write_text(META.replace("title=Two\n", ""))
    target = folder / f"untitled.{container}"
    run_ffmpeg("-i", folder / "plain.wav", "-i", folder / "untitled.txt", "-map", "0:a",
               "-map_chapters", "1", target)  # fmt: skip

    assert read_tags(target).chapters[1] == Chapter(0.5, "Chapter 2")


@pytest.mark.parametrize("container", ["ogg", "opus", "flac"])
def test_chapters_in_comments_are_read(folder, container):
    target = folder / f"comments.{container}"
    first = ("-metadata", "CHAPTER01=00:00:00.250", "-metadata", "CHAPTER01NAME=First")
    run_ffmpeg("-i", folder / "plain.wav", *first, "-metadata", "CHAPTER02=01:00:01.000", target)

    assert read_tags(target).chapters == (Chapter(0.25, "First"), Chapter(3601.0, "Chapter 2"))


def test_a_cue_sheet_in_a_tag_gives_chapters_and_what_is_missing(folder):
    sheet = (
        'TITLE "Sheet"\nPERFORMER "DJ"\nREM DATE 2020\nFILE "a" WAVE\nTRACK 01 AUDIO\n'
        'TITLE "One"\nINDEX 01 00:00:15\nTRACK 02 AUDIO\nPERFORMER "Guest"\nTITLE "Two"\n'
        "INDEX 01 00:00:30\n"
    )
    path = flac_with(folder, "cue.flac", b"TITLE=Own", b"CUESHEET=" + sheet.encode())

    assert read_tags(path) == Tags(
        title="Own",
        artist="DJ",
        date="2020",
        chapters=(Chapter(0.2, "One"), Chapter(0.4, "Guest – Two")),
    )


@pytest.mark.parametrize(("container", "suffix"), [
    ("mp3", "jpg"), ("mp3", "png"), ("m4a", "jpg"), ("m4a", "png"), ("flac", "jpg"), ("flac", "png")
])  # fmt: skip
def test_artwork_is_the_picture_byte_for_byte(folder, container, suffix):
    cover = folder / f"cover.{suffix}"
    attached = ("-map", "0:a", "-map", "2:v", "-c:v", "copy", "-disposition:v", "attached_pic")

    found = read_tags(tagged(folder, f"{suffix}.{container}", "-i", cover, *attached))

    assert found.artwork == cover.read_bytes()
    assert found.title == "The Night Shift", "a picture's own tags are not the recording's"


def test_artwork_in_ogg_and_matroska_is_read(folder):
    block = base64.b64encode(flac_picture(3, picture("PNG"))).decode()
    ogg, mka = folder / "picture.ogg", folder / "picture.mka"
    run_ffmpeg("-i", folder / "plain.wav", "-metadata", f"METADATA_BLOCK_PICTURE={block}", ogg)
    run_ffmpeg("-i", folder / "plain.wav", "-attach", folder / "cover.jpg", "-metadata:s:t",
               "mimetype=image/jpeg", mka)  # fmt: skip

    assert read_tags(ogg).artwork == picture("PNG")
    assert read_tags(mka).artwork == picture("JPEG")


def test_of_several_pictures_the_front_cover_is_taken(folder):
    artist, front, back = (picture("PNG", (shade, 0, 0)) for shade in (1, 2, 3))
    blocks = (flac_picture(8, artist), flac_picture(3, front), flac_picture(4, back))

    assert read_tags(flac_with(folder, "three.flac", pictures=blocks)).artwork == front
    assert read_tags(flac_with(folder, "two.flac", pictures=blocks[::2])).artwork == artist


@pytest.mark.parametrize(
    "data",
    [
        b"<svg onload='x'/>",
        b"GIF89a" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(MAX_ARTWORK_BYTES),
    ],
    ids=["svg", "gif", "large"],
)
def test_a_picture_that_is_none_or_too_large_is_left(folder, data):
    """Whatever calls itself artwork is shown on a page and fed to a decoder later."""
    path = flac_with(folder, "odd.flac", b"TITLE=Fine", pictures=(flac_picture(3, data),))

    assert read_tags(path) == Tags(title="Fine")


def test_texts_in_the_old_encoding_are_read(folder):
    """Taggers of the nineties wrote Latin letters where UTF-8 belongs."""
    path = flac_with(folder, "old.flac", b"TITLE=Bj\xf6rk \x96 live", "ARTIST=Åsa".encode())

    assert read_tags(path) == Tags(title="Björk – live", artist="Åsa")


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ([b"PERFORMER=P"], Tags(artist="P")),
        ([b"PERFORMER=P", b"ALBUMARTIST=AA"], Tags(artist="AA")),
        ([b"ARTIST= ", b"PERFORMER=P"], Tags(artist="P")),
        ([b"YEAR=1999"], Tags(date="1999")),
        ([b"DATE=01/05/2023", b"YEAR=2023"], Tags(date="2023")),
        ([b"TITLE=a\x1b[2Jb\xe2\x80\xaec\r\nd"], Tags(title="a[2Jbc d")),
        ([b"TITLE=" + b"x" * 100_000], Tags(title="x" * 500)),
    ],
)
def test_tags_stand_in_for_one_another_and_are_cleaned(folder, comments, expected):
    assert read_tags(flac_with(folder, "stand-in.flac", *comments)) == expected


def test_a_broadcast_wave_says_when_it_was_recorded(folder):
    target = folder / "bwf.wav"
    given = ("-write_bext", "1", "-metadata", "origination_date=2023-05-01")
    run_ffmpeg("-i", folder / "plain.wav", *given, target)

    assert read_tags(target).date == "2023-05-01"


def test_a_file_that_cannot_be_opened_says_nothing(folder):
    """libsndfile may read what ffmpeg does not: tags must not stop a show."""
    (folder / "noise.mp3").write_bytes(bytes(range(256)) * 40)
    (folder / "empty.ogg").touch()
    list_of_files = folder / "list.mp3"
    list_of_files.write_text(f"ffconcat version 1.0\nfile '{folder / 'plain.wav'}'\n")

    for path in (folder / "noise.mp3", folder / "empty.ogg", list_of_files, folder, folder / "no"):
        assert read_tags(path) == Tags(), path
    assert read_tags(folder / "plain.wav") == Tags()


def test_a_damaged_file_says_what_it_can(folder):
    whole = tagged(folder, "whole.mp3", "-map", "0:a").read_bytes()
    cut = folder / "cut.mp3"
    for length in range(16, len(whole), 97):
        cut.write_bytes(whole[:length])
        assert read_tags(cut).title in ("", "The Night Shift")
