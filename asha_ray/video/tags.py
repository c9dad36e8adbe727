"""What a video says of itself: title, artist, album and date, its chapters, and a cover."""

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.stream import Disposition
from PIL import Image

from asha_ray.values import MAX_ARTWORK_BYTES, Tags

CHAPTER_BASE = Fraction(1, 1000)
COVER_CODECS = {"JPEG": "mjpeg", "PNG": "png"}
MAX_COVER_SIDE = 8192
MAX_COVER_PIXELS = 1 << 25
"""Decoded, these are 134 MB at most."""

UNREADABLE = (
    OSError, ValueError, SyntaxError, LookupError, EOFError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises at pictures that are none."""


def tags_from(tags: Tags, start_s: Fraction) -> Tags:
    """Tags of the part of a recording that begins at `start_s`, its chapters counted from there."""
    begun = [chapter for chapter in tags.chapters if chapter.start_s <= start_s]
    to_come = [chapter for chapter in tags.chapters if chapter.start_s > start_s]
    chapters = [replace(chapter, start_s=0.0) for chapter in begun[-1:]]
    chapters += [replace(chapter, start_s=chapter.start_s - float(start_s)) for chapter in to_come]
    return replace(tags, chapters=tuple(chapters))


def add_tags(output: Any, tags: Tags, duration_s: Fraction) -> None:
    """Write tags into a container that has no header yet.

    Players show the first chapter from 0 on, so that what comes before it gets a chapter of its
    own, by the recording's title.

    Args:
        output: opened with PyAV.
        tags: chapters that begin after the end are left out.
        duration_s: when the last chapter ends.
    """
    told = {"title": tags.title, "artist": tags.artist, "album": tags.album, "date": tags.date}
    output.metadata.update({name: _plain(text) for name, text in told.items() if text})
    end = int(duration_s / CHAPTER_BASE)
    begun = [(round(chapter.start_s / CHAPTER_BASE), chapter.title) for chapter in tags.chapters]
    if begun and begun[0][0] > 0:
        begun.insert(0, (0, tags.title or "Beginning"))
    chapters = [
        {
            "id": number,
            "start": start,
            "end": min(stop, end),
            "time_base": CHAPTER_BASE,
            "metadata": {"title": _plain(title)},
        }
        for number, ((start, title), (stop, _)) in enumerate(pairwise([*begun, (end, "")]), 1)
        if 0 <= start < min(stop, end)
    ]
    if chapters:
        output.set_chapters(chapters)


def add_cover(output: Any, artwork: bytes) -> Any | None:
    """Make room for a cover in an mp4 that has no header yet.

    Returns:
        Its packet, to be written before all others; None where the artwork is no JPEG or PNG that
        can be decoded.
    """
    try:
        codec, width, height = _cover(artwork)
    except UNREADABLE:
        return None
    stream = output.add_mux_stream(codec, rate=1, width=width, height=height)
    stream.disposition = Disposition.attached_pic
    packet = av.Packet(artwork)
    packet.stream, packet.time_base = stream, Fraction(1)
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    return packet


def _cover(artwork: bytes) -> tuple[str, int, int]:
    """The codec and size of a picture that decodes to its end: torn ones spoil their video."""
    if len(artwork) > MAX_ARTWORK_BYTES:
        raise ValueError("it has too many bytes")
    with Image.open(io.BytesIO(artwork), formats=tuple(COVER_CODECS)) as image:
        width, height = image.size
        if max(width, height) > MAX_COVER_SIDE or width * height > MAX_COVER_PIXELS:
            raise ValueError("it has too many pixels")
        image.load()
        return COVER_CODECS[str(image.format)], width, height


def _plain(text: str) -> str:
    """Text that any file can hold: a name may have bytes in it that are no UTF-8."""
    return text.replace("\0", "").encode(errors="replace").decode()
