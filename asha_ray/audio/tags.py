"""What a recording says of itself: its tags, its chapters, the picture that it carries.

Any of it may be wrong, enormous or hostile; what is returned is neither, and nothing here fails: a
show without tags is a show.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from asha_ray.audio.cue import read_cue
from asha_ray.audio.decode import require_sound_file
from asha_ray.audio.tag_text import in_order, normal_date, one_line
from asha_ray.errors import AudioError
from asha_ray.ffmpeg import INPUT_OPTIONS, file_url
from asha_ray.values import MAX_ARTWORK_BYTES, Chapter, Tags

MAX_PACKETS = 64
"""That are read in search of pictures; ffmpeg hands them out before any sound."""

PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""How JPEG and PNG files begin."""

TITLE = ("title",)
ARTIST = ("artist", "album_artist", "albumartist", "performer")
ALBUM = ("album",)
DATE = ("date", "year", "originaldate", "origination_date")
"""Tag names as ffmpeg gives them, the best one first; the last is Broadcast Wave's."""

ELEMENT_ID = re.compile(r"\Achp?[0-9]+\Z")
"""What ffmpeg takes for the title of an ID3 chapter that has none."""


def read_tags(path: Path) -> Tags:
    """The tags of a local sound file; empty where it has none, or cannot be opened.

    Texts are one line of at most 500 characters, there are at most 1000 chapters, and artwork is
    JPEG or PNG by its first bytes and has at most 10 MB.
    """
    try:
        require_sound_file(path)
        with av.open(
            file_url(path), options=INPUT_OPTIONS, metadata_errors="surrogateescape"
        ) as container:
            found = _texts(container)
            sheet = read_cue(found["cuesheet"].encode()) if "cuesheet" in found else Tags()
            return Tags(
                title=_first(found, TITLE) or sheet.title,
                artist=_first(found, ARTIST) or sheet.artist,
                album=_first(found, ALBUM),
                date=next(filter(None, (normal_date(found.get(name, "")) for name in DATE)), "")
                or sheet.date,
                # FLAC's own sheet, which ffmpeg reads, has codes for titles.
                chapters=sheet.chapters or _chapters(container),
                artwork=_artwork(container),
            )
    except (AudioError, av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError):
        return Tags()


def _texts(container: Any) -> dict[str, str]:
    """Every tag by its name in small letters: the file's own, and those of its sound."""
    found: dict[str, str] = {}
    for metadata in (container.metadata, *(stream.metadata for stream in container.streams.audio)):
        for name, value in metadata.items():
            text = _readable(value)
            if text.strip():
                found.setdefault(name.lower(), text)
    return found


def _readable(value: str) -> str:
    """A text whose bytes are no UTF-8 as what old taggers wrote instead."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raw = value.encode(errors="surrogateescape")
        return raw.decode("cp1252", errors="replace")
    return value


def _first(found: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next(filter(None, (one_line(found.get(name, "")) for name in names)), "")


def _chapters(container: Any) -> tuple[Chapter, ...]:
    return in_order(
        (
            float(chapter["start"] * (chapter["time_base"] or 0)),
            ELEMENT_ID.sub("", _readable(chapter["metadata"].get("title", ""))),
        )
        for chapter in container.chapters()
    )


def _artwork(container: Any) -> bytes:
    """The front cover, or the first picture that is one; empty where there is none."""
    pictures = [
        stream
        for stream in container.streams.video
        if stream.disposition & Disposition.attached_pic
    ]
    front = {stream.index for stream in pictures if "front" in _comment(stream)}
    others = {stream.index for stream in pictures} - front
    chosen = b""
    with suppress(av.FFmpegError, OSError, ValueError):  # damage further on is the decoder's
        for packet in islice(container.demux(), MAX_PACKETS if pictures else 0):
            index, fits = packet.stream.index, 0 < packet.size <= MAX_ARTWORK_BYTES
            if not fits or (index not in front and (chosen or index not in others)):
                continue
            data = bytes(packet)
            if data.startswith(PICTURES):
                if index in front:
                    return data
                chosen = data
    return chosen


def _comment(stream: Any) -> str:
    return str(stream.metadata.get("comment", "")).lower()
