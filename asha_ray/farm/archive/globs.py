"""Patterns of paths and names, as an archive's spec has them: `*`, `?` and `[…]`, in any case."""

import re
import unicodedata
from fnmatch import translate
from functools import lru_cache


def fits(patterns: tuple[str, ...], text: str) -> bool:
    """Whether a text fits one of some patterns; `*` stands for slashes too.

    >>> fits(("2023/*", "*.flac"), "2024/Live/A.FLAC")
    True
    """
    return any(pattern.match(_composed(text)) for pattern in _compiled(patterns))


@lru_cache(maxsize=1024)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(_composed(item)), re.IGNORECASE) for item in patterns)


def _composed(text: str) -> str:
    """Text whose accents are no characters of their own, as they are in names that a Mac gave."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
