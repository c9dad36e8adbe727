"""Cue sheets: what a recording is called, and when each of its tracks begins.

The format is that of CDRWIN, as its manual and every tool since have it; a second has 75 frames.
"""

import codecs
import re
from dataclasses import dataclass

from asha_ray.audio.tag_text import in_order, normal_date, one_line
from asha_ray.values import Tags

MAX_CUE_BYTES = 1 << 20
"""A sheet of a thousand tracks has a tenth of it."""
FRAMES_PER_SECOND = 75

_LINE = re.compile(r"\s*((?:REM\s+)?[A-Z]+)\s+(.*)", re.IGNORECASE)
_INDEX = re.compile(r"0?1\s+([0-9]{1,5}):([0-5]?[0-9]):([0-6]?[0-9]|7[0-4])\s*")


@dataclass
class _Part:
    """The sheet itself, or one of its tracks, while it is read."""

    title: str = ""
    performer: str = ""
    start_s: float | None = None


def read_cue(content: bytes) -> Tags:
    """What a cue sheet says: title, artist, date, and a chapter for each track.

    A track by someone else than the whole is called `Performer – Title`. Of a sheet of several
    sound files only the first one's tracks are read.

    Args:
        content: UTF-8, UTF-16 that says so at its beginning, or cp1252 where it is neither; empty
            tags where it is no cue sheet.
    """
    sheet = _Part()
    tracks: list[_Part] = []
    day, num_files = "", 0
    for line in _decoded(content).splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        command, value = " ".join(match[1].upper().split()), match[2].strip()
        num_files += command == "FILE"
        if num_files > 1:
            break
        part = tracks[-1] if tracks else sheet
        if command == "TRACK":
            tracks.append(_Part())
        elif command == "TITLE":
            part.title = _unquoted(value)
        elif command == "PERFORMER":
            part.performer = _unquoted(value)
        elif command == "REM DATE":
            day = day or normal_date(_unquoted(value))
        elif command == "INDEX" and tracks:
            part.start_s = _seconds(value) if part.start_s is None else part.start_s
    chapters = in_order(
        (track.start_s, _track_title(track, sheet)) for track in tracks if track.start_s is not None
    )
    if not chapters:  # any text may have a line that begins with `title`
        return Tags()
    return Tags(title=sheet.title, artist=sheet.performer, date=day, chapters=chapters)


def _decoded(content: bytes) -> str:
    content = content[:MAX_CUE_BYTES]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _unquoted(value: str) -> str:
    return one_line(value[1:].partition('"')[0] if value.startswith('"') else value)


def _seconds(value: str) -> float | None:
    match = _INDEX.fullmatch(value)
    if not match:
        return None
    minutes, seconds, frames = (int(part) for part in match.groups())
    return minutes * 60 + seconds + frames / FRAMES_PER_SECOND


def _track_title(track: _Part, sheet: _Part) -> str:
    if not track.performer or track.performer.casefold() == sheet.performer.casefold():
        return track.title
    return " – ".join(part for part in (track.performer, track.title) if part)
