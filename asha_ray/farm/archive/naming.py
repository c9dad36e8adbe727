"""Names: what a path says of a show, and what a show's video is called.

Patterns are a user's, with words in braces; paths and tags are anybody's. No pattern becomes a
regular expression, and a fit is found in time that grows with pattern and path, not with guesses.
"""

import hashlib
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from asha_ray.audio.tag_text import JOINERS, normal_date, one_line
from asha_ray.errors import SpecError
from asha_ray.spec import ArchiveSpec
from asha_ray.values import words_in

NAME_WORDS = (
    "path", "folder", "stem", "show", "date", "year", "title", "artist", "album", "id",
)  # fmt: skip
"""What a name can be made of."""
PATH_WORDS = ("show", "title", "artist", "album", "date", "year", "stem")
"""What a path can say; of a stem nothing is learned."""
WHOLE_PATHS = ("path", "folder")
"""Words whose slashes are those of folders."""

MAX_NAME_BYTES = 150
MAX_PATH_BYTES = 600
MAX_SLUG_CHARS = 80
HASH_CHARS = 8

FORBIDDEN = frozenset('\\:*?"<>|/')
"""What no name has, on Windows or anywhere."""
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
"""Names that Windows takes for a device, with whatever suffix."""

TAKEN_ENDS = (".mp4", ".json", ".jpg")
"""Ends of the files that a show `x` has: `x.mp4`, `x.mp4.json`, `x.jpg`, and `x.strip.jpg`."""
STRIP_END = ".strip"
OWN_FILES = ("report.html", "catalogue.parquet")
"""What an archive has beside its shows."""

BRACKETS = {"(": ")", "[": "]", "{": "}", "“": "”", "„": "“", "«": "»"}

_DAYS = (
    re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])"),
    re.compile(r"[0-9]{4}_[0-9]{2}_[0-9]{2}(?![0-9])"),
    re.compile(r"[0-9]{2}\.[0-9]{2}\.[0-9]{4}(?![0-9])"),
    re.compile(r"[0-9]{8}(?![0-9])"),
)
_YEAR = re.compile(r"[0-9]{4}(?![0-9])")
_LESS = (re.compile(r"[0-9]{4}-[0-9]{2}(?![0-9])"), _YEAR)

# In a component of a name each word is one of these, until its separators are known.
_FULL, _EMPTY = "\x01", "\x00"
_MARKS = r"(?:[^\w()\[\]\x00\x01]|_)*"
_IN_BRACKETS = re.compile(rf"\({_MARKS}\x00{_MARKS}\)|\[{_MARKS}\x00{_MARKS}\]")
_GAP = re.compile(rf"(?P<before>{_MARKS})\x00(?P<after>{_MARKS})")


class _Token(NamedTuple):
    kind: Literal["text", "word", "any"]
    text: str


def check_patterns(spec: ArchiveSpec) -> None:
    """Make sure that an archive's patterns can be read.

    Raises:
        SpecError: naming the field, what is wrong in it, and which words there are.
    """
    _tokens(spec.names, "names", NAME_WORDS)
    for pattern in spec.paths:
        for component in pattern.split("/"):
            _check_component(pattern, _tokens(component, "paths", PATH_WORDS))


def words_from_path(key: str, patterns: Iterable[str]) -> dict[str, str]:
    """What a path says of its show, by the first pattern that fits it whole, less its extension.

    A word, like a `*`, spans no `/`, and is as short as it can be; a date is whole, and as
    `normal_date` gives it. A word that comes in two folders is the same in both. Letters fit
    whatever their case.

    >>> words_from_path("Night Shift/20230501_Live.mp3", ["{show}/{date}_{title}"])
    {'show': 'Night Shift', 'date': '2023-05-01', 'title': 'Live'}

    Raises:
        SpecError: if a pattern is none.
    """
    path = unicodedata.normalize("NFC", posixpath.splitext(key)[0])
    for pattern in patterns:
        # In `Best of 1999, 2023-05-01` the year, though it comes first, is not the date.
        for dates in (_DAYS, _LESS):
            found = _fit(unicodedata.normalize("NFC", pattern), path, dates)
            if found is not None:
                return _said(found)
    return {}


def output_name(pattern: str, words: Mapping[str, str]) -> str:
    """The path of a show's video below the output, without extension.

    A word that is empty takes its separators with it. Where nothing is left for the file's own
    name, it is the stem, or the id. Folders and names are such as every disk and bucket takes,
    and such that no two of them have a file in common, or one a file where another has a folder.

    Args:
        pattern: such as `{show}/{date} {title}`.
        words: by name; those that lack are empty. One of `stem` and `id` is not.

    Raises:
        SpecError: if the pattern is none.
    """
    *folders, name = [
        _filled(_tokens(component, "names", NAME_WORDS), words) for component in pattern.split("/")
    ]
    *inner, own = name.split("/")
    outer = [part for folder in folders for part in folder.split("/")]
    parts = [_folder(part) for part in (*outer, *inner)]
    choices = (own, _one_name(words.get("stem", "")), words.get("id", ""))
    names = (_component(choice, (STRIP_END,)) for choice in choices)
    return _within([part for part in parts if part], next(filter(None, names), "_"))


def fold(name: str) -> str:
    """What two names have in common that must not both exist: disks forget case and forms."""
    # Twice, since a form may bring a letter back that the first fold would have changed.
    for _ in range(2):
        name = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name).casefold())
    return name


def slug(text: str) -> str:
    """A text as a word for links: lower-case words joined by `-`, 80 characters at most.

    >>> slug("Don't Stop: The Night Shift #12")
    'dont-stop-the-night-shift-12'
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")
    return "-".join(words_in(plain))[:MAX_SLUG_CHARS].rstrip("-")


def _tokens(pattern: str, field: str, known: tuple[str, ...]) -> list[_Token]:
    there = f"there are {', '.join(f'{{{word}}}' for word in known)}"
    tokens = []
    for part in re.split(r"(\{[^{}]*\})", pattern):
        if part.startswith("{") and part.endswith("}"):
            word = part[1:-1]
            if word not in known:
                raise SpecError(f"{field}: there is no word {part[:80]} in {pattern!r}; {there}")
            tokens.append(_Token("word", word))
        elif "{" in part or "}" in part:
            raise SpecError(
                f"{field}: a brace is open or closed alone in {pattern!r}; write words as "
                f"{{show}}; {there}"
            )
        elif field == "paths":
            pieces = re.split(r"(\*)", part)
            tokens += [_Token("any" if piece == "*" else "text", piece) for piece in pieces]
        else:
            tokens.append(_Token("text", part))
    return [token for token in tokens if token.text]


def _check_component(pattern: str, tokens: list[_Token]) -> None:
    words = [token.text for token in tokens if token.kind == "word"]
    for word in words:
        if words.count(word) > 1:
            raise SpecError(
                f"paths: {{{word}}} comes twice in one name in {pattern!r}; write * for one of them"
            )


def _fit(pattern: str, path: str, dates: tuple[re.Pattern[str], ...]) -> dict[str, str] | None:
    """The words of a path as they are written there, or None where the pattern does not fit."""
    patterns, names = pattern.split("/"), path.split("/")
    if len(patterns) != len(names):
        return None
    found: dict[str, str] = {}
    for component, name in zip(patterns, names, strict=True):
        tokens = [
            _Token("text", found[token.text])
            if token.kind == "word" and token.text in found
            else token
            for token in _tokens(component, "paths", PATH_WORDS)
        ]
        words = _fit_name(tokens, name, dates)
        if words is None:
            return None
        found |= words
    return found


def _fit_name(
    tokens: list[_Token], name: str, dates: tuple[re.Pattern[str], ...]
) -> dict[str, str] | None:
    # fits[t][p]: whether the tokens from t on fit the name from p on. Filled from the end, it tells
    # at each step which way leads through, so that nothing is tried in vain.
    fits = [bytearray(len(name) + 1) for _ in range(len(tokens) + 1)]
    fits[-1][-1] = 1
    for index in range(len(tokens) - 1, -1, -1):
        after = fits[index + 1]
        for place in range(len(name) + 1):
            end = _end(tokens[index], name, place, after, dates)
            fits[index][place] = end >= 0
    if not fits[0][0]:
        return None
    found, place = {}, 0
    for token, after in zip(tokens, fits[1:], strict=True):
        end = _end(token, name, place, after, dates)
        if token.kind == "word":
            found[token.text] = name[place:end]
        place = end
    return found


def _end(
    token: _Token, name: str, start: int, after: bytearray, dates: tuple[re.Pattern[str], ...]
) -> int:
    """Where a token that begins at `start` ends, so that what comes after it fits; or -1."""
    if token.kind == "text":
        end = start + len(token.text)
        same = name[start:end].casefold() == token.text.casefold()
        return end if same and end <= len(name) and after[end] else -1
    if token.kind == "any":
        return after.find(1, start)
    if token.text not in ("date", "year"):
        return after.find(1, start + 1)
    if start and name[start - 1].isdecimal():  # the end of a longer number
        return -1
    for pattern in (_YEAR,) if token.text == "year" else dates:
        match = pattern.match(name, start)
        if match and after[match.end()] and normal_date(match[0]):
            return match.end()
    return -1


def _said(found: Mapping[str, str]) -> dict[str, str]:
    words = {word: one_line(text) for word, text in found.items() if word != "stem"}
    words["date"] = normal_date(words.get("date", ""))
    return {word: text for word, text in words.items() if text}


def _filled(tokens: list[_Token], words: Mapping[str, str]) -> str:
    """A component of a pattern with its words, less separators that separate nothing."""
    values = []
    outline = ""
    for token in tokens:
        if token.kind == "text":
            outline += token.text.replace(_FULL, "_").replace(_EMPTY, "_")
            continue
        text = words.get(token.text, "")
        value = text if token.text in WHOLE_PATHS else _one_name(text)
        outline += _FULL if value.strip() else _EMPTY
        values += [value] if value.strip() else []
    while _EMPTY in outline:
        inside = _IN_BRACKETS.sub(_EMPTY, outline)
        outline = inside if inside != outline else _GAP.sub(_closed, outline, count=1)
    filling: Iterator[str] = iter(values)
    return "".join(next(filling) if char == _FULL else char for char in outline)


def _closed(gap: re.Match[str]) -> str:
    """What stays between the neighbours of an empty word: one of the two separators, if any."""
    begins = gap.start() == 0 or gap.string[gap.start() - 1] in "(["
    ends = gap.end() == len(gap.string) or gap.string[gap.end()] in ")]"
    return "" if begins or ends else gap["before"] or gap["after"]


def _one_name(text: str) -> str:
    return text.replace("/", "_")


def _folder(text: str) -> str:
    return _component(text, TAKEN_ENDS, OWN_FILES)


def _component(text: str, taken_ends: tuple[str, ...], taken: tuple[str, ...] = ()) -> str:
    """A text as one name that any file system takes; empty where nothing of it is left.

    Where it is taken, or ends as what is, it gets a `_`.
    """
    name = "".join(map(_allowed, unicodedata.normalize("NFC", text)))
    # What has gone may have kept two characters apart that are one.
    name = unicodedata.normalize("NFC", _begun(name)).rstrip(". ")
    stem, dot, suffix = name.partition(".")
    if fold(stem.rstrip()) in DEVICES:
        name = f"{stem.rstrip()}_{dot}{suffix}"
    if fold(name).endswith(taken_ends) or fold(name) in taken:
        name += "_"
    return _cut(name, name) if len(name.encode()) > MAX_NAME_BYTES else name


def _begun(name: str) -> str:
    """A name from its first letter, digit or `_` on, less the ends of brackets opened before."""
    while name and not (name[0].isalnum() or name[0] == "_"):
        opening, name = name[0], name[1:]
        closing = BRACKETS.get(opening, "")
        if closing and name.count(closing) > name.count(opening):
            name = name.replace(closing, "", 1)
    return name


def _allowed(char: str) -> str:
    if char in FORBIDDEN:
        return "_"
    if char.isprintable() or char in JOINERS:
        return char
    kind = unicodedata.category(char)
    # Spaces of other widths are spaces; invisible marks, which could turn a name round, go.
    return " " if kind == "Zs" else "" if kind == "Cf" else "_"


def _cut(name: str, whole: str) -> str:
    """As much of a name as fits, and a hash of `whole`, which tells it from others cut alike."""
    mark = "-" + hashlib.sha256(whole.encode()).hexdigest()[:HASH_CHARS]
    kept = name.encode()[: MAX_NAME_BYTES - len(mark)].decode(errors="ignore")
    return kept.rstrip(". ") + mark


def _within(folders: list[str], name: str) -> str:
    """A path of folders and a name; of one that is too long the innermost folders go."""
    whole = "/".join([*folders, name])
    if len(whole.encode()) <= MAX_PATH_BYTES:
        return whole
    name = _cut(name, whole)
    while len("/".join([*folders, name]).encode()) > MAX_PATH_BYTES:
        folders = folders[:-1]
    return "/".join([*folders, name])
