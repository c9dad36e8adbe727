"""What tags are made of, cleaned: lines of text, dates, chapters. All of it is by strangers."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from itertools import islice
from math import isfinite

from asha_ray.values import Chapter

MAX_CHARS = 500
MAX_CHAPTERS = 1000
YEARS = range(1800, 2200)
"""A number beside these is no year of a recording."""

JOINERS = "\u200c\u200d"
"""Invisible, but Persian words and many emoji are spelled with them."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<name>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>[0-9]{1,2})"
_YEAR = r"(?P<year>[0-9]{4})"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_YEAR}(?:(?P<mark>[-/_.])(?P<month>[0-9]{{1,2}})(?:(?P=mark){_DAY})?)?",
        rf"{_YEAR}(?P<month>[0-9]{{2}})(?P<day>[0-9]{{2}})",
        rf"{_DAY}\.(?P<month>[0-9]{{1,2}})\.{_YEAR}",
        rf"{_MONTH} {_DAY}(?:st|nd|rd|th)?,? {_YEAR}",
        rf"{_DAY}(?:st|nd|rd|th|\.)? {_MONTH},? {_YEAR}",
        rf"{_MONTH},? {_YEAR}",
    )
)
_TIME = re.compile(r"(?<=[0-9])(?:T[0-9]{2}| [0-9]{1,2}:[0-9]{2}).*")


def one_line(text: str) -> str:
    """A text as one line of printable characters, 500 at most, in Unicode's form NFC.

    >>> one_line("Night\\tShift\\r\\n  live\\x00")
    'Night Shift live'
    """
    # Nothing that is shown needs more, and joining letters to their accents takes time.
    seen = (" " if char.isspace() else char for char in text[: 4 * MAX_CHARS])
    shown = "".join(char for char in seen if char.isprintable() or char in JOINERS)
    return " ".join(unicodedata.normalize("NFC", shown).split())[:MAX_CHARS].rstrip()


def normal_date(text: str) -> str:
    """A date as `2023-05-01`, `2023-05` or `2023`; empty where it is none or could be two.

    Day and month are told apart where the year comes first, by a month's English name, and by dots,
    which are written from the day to the year. A time of day after it is left out.

    >>> [normal_date(text) for text in ("20230501", "1.5.2023", "May 1, 2023", "01/05/2023")]
    ['2023-05-01', '2023-05-01', '2023-05-01', '']
    """
    line = _TIME.sub("", one_line(text))
    for pattern in _DATES:
        if match := pattern.fullmatch(line):
            return _checked(match.groupdict())
    return ""


def _checked(found: dict[str, str | None]) -> str:
    year, day = int(found["year"] or 0), found.get("day")
    name, number = found.get("name"), found.get("month")
    month = _MONTHS.index(name[:3].lower()) + 1 if name else int(number or 1)
    try:
        whole = date(year, month, int(day or 1))
    except ValueError:
        return ""
    if year not in YEARS:
        return ""
    length = len("2023-05-01") if day else len("2023-05") if name or number else len("2023")
    return whole.isoformat()[:length]


def in_order(chapters: Iterable[tuple[float, str]]) -> tuple[Chapter, ...]:
    """Chapters of seconds and titles: ascending, one at a time, each with a title.

    Times that are none are left out, of several at one time the first stays, and of more than a
    thousand those that come first.
    """
    by_time: dict[float, str] = {}
    for start_s, title in chapters:
        if isfinite(start_s) and start_s >= 0:
            by_time.setdefault(start_s, title)
    ordered = enumerate(islice(sorted(by_time.items()), MAX_CHAPTERS), start=1)
    return tuple(
        Chapter(start_s, one_line(title) or f"Chapter {number}")
        for number, (start_s, title) in ordered
    )
