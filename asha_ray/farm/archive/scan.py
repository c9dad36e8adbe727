"""What an archive's source holds: one listing, and no file opened."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from asha_ray.errors import NotFoundError, SpecError
from asha_ray.farm.archive.globs import fits
from asha_ray.farm.archive.listing import files_below
from asha_ray.farm.places import absolute
from asha_ray.progress import Progress
from asha_ray.spec import ArchiveSpec
from asha_ray.storage import Entry
from asha_ray.storage.base import CONTROL, is_s3

SOUND_SUFFIXES = frozenset(
    (
        ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".bwf", ".caf", ".dts",
        ".eac3", ".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3", ".mpc", ".mpga", ".oga", ".ogg",
        ".opus", ".shn", ".tak", ".tta", ".w64", ".wav", ".wave", ".weba", ".wma", ".wv",
    )
)  # fmt: skip
"""How sound that can be read is named; a container that as often holds a film is none of it."""
SIDECAR, CUE = ".asha.yaml", ".cue"
SHOW_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A show's sound file, as a list of files tells it.

    Attributes:
        key: its path below the source.
        uri: where it is.
        num_bytes: its size.
        modified_s: when it was last written, in seconds since 1970.
        version: what changes when its content is replaced.
        sidecar: likewise of the settings beside it; empty where there are none.
        cue: likewise of the cue sheet beside it.
        cue_uri: where that is, or empty.
    """

    key: str
    uri: str
    num_bytes: int
    modified_s: float
    version: str
    sidecar: str = ""
    cue: str = ""
    cue_uri: str = ""

    @property
    def sidecar_uri(self) -> str:
        """Where the settings beside it are, if there are any."""
        return self.uri + SIDECAR


@dataclass(frozen=True)
class Scan:
    """What an archive's source holds.

    Attributes:
        sources: the shows, in the order in which they are to be done.
        refused: `(name, why)` of what can be no show.
    """

    sources: list[Source]
    refused: list[tuple[str, str]]


def show_id_of(key: str) -> str:
    """What a show is known by: a hash of its path below the source, byte by byte."""
    return hashlib.sha256(key.encode()).hexdigest()[:SHOW_ID_DIGITS]


def scan(spec: ArchiveSpec, progress: Progress) -> Scan:
    """Find the shows of an archive.

    What is hidden, lies below the output or the work root, or fits `exclude` is none. Of 100,000
    files each takes about a kilobyte of memory.

    Raises:
        NotFoundError: if the source does not exist.
        SpecError: if it is a file, or its videos could not be told from the archive's own.
        StorageError: if it cannot be listed.
    """
    base = absolute(spec.source).rstrip("/")
    _check_source(spec, base)
    finder = _Finder(spec, f"{base}/")
    progress.stage("finding shows", unit="files")
    num_files = 0
    for key, entry in files_below(base, finder.refuse, own_folders(spec, base)):
        finder.look_at(key, entry)
        progress.advance()
        num_files += 1
    if not num_files and is_s3(base) and not finder.refused:
        raise NotFoundError(
            f"finding shows in {spec.source}: nothing is there; check the bucket and the prefix"
        )
    return finder.result()


def _check_source(spec: ArchiveSpec, base: str) -> None:
    doing = f"finding shows in {spec.source}"
    if not is_s3(base):
        if not Path(base or "/").exists():
            raise NotFoundError(f"{doing}: there is no such folder; check the path")
        if not Path(base or "/").is_dir():
            raise SpecError(f"{doing}: it is a file; give the folder that holds the shows")
    if spec.include and _resolved(base) == _resolved(absolute(spec.output)):
        raise SpecError(
            f"{doing}: the videos would lie there too, and `include` may take them for shows; give "
            "another output, or no `include`"
        )


def own_folders(spec: ArchiveSpec, base: str) -> list[str]:
    """An archive's output and work root as the beginnings of keys below a place they may lie in."""
    place = _resolved(base)
    own = [_resolved(absolute(uri)) for uri in (spec.output, spec.run.work) if uri]
    return [uri.removeprefix(place)[1:] + "/" for uri in own if uri.startswith(f"{place}/")]


def _resolved(uri: str) -> str:
    """A place as its only name, with no slash at the end."""
    return (uri if is_s3(uri) else os.path.realpath(uri)).rstrip("/")


@dataclass
class _Finder:
    """Sorts what a source holds.

    Attributes:
        spec: says what counts.
        prefix: of uris below the source.
    """

    spec: ArchiveSpec
    prefix: str
    sounds: list[Entry] = field(default_factory=list)
    sidecars: dict[str, str] = field(default_factory=dict)
    cues: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def look_at(self, key: str, entry: Entry) -> None:
        """Take a file for a show, for what lies beside one, or for neither."""
        if _is_hidden(key):
            return
        if key.endswith(SIDECAR):
            self.sidecars[key.removesuffix(SIDECAR)] = entry.version
        elif key[-len(CUE) :].lower() == CUE:
            self.cues[key] = entry.version
        elif self._counts(key):
            if entry.num_bytes:
                self.sounds.append(entry)
            else:
                self.refused[key] = "it is empty"

    def refuse(self, uri: str) -> None:
        """Hear of a name that no path may have."""
        key = uri.removeprefix(self.prefix)
        is_folder = not is_s3(uri) and Path(uri).is_dir()
        if (is_folder or self._counts(key)) and not _is_hidden(key):
            self.refused[_shown(key)] = _why_refused(key)

    def result(self) -> Scan:
        """All shows with what lies beside them."""
        sources = [self._source(entry) for entry in self.sounds]
        sources.sort(key=_ORDERS[self.spec.order])
        return Scan(sources, sorted(self.refused.items()))

    def _counts(self, key: str) -> bool:
        if self.spec.include:
            counts = fits(self.spec.include, key)
        else:
            counts = Path(key).suffix.lower() in SOUND_SUFFIXES
        return counts and not fits(self.spec.exclude, key)

    def _source(self, entry: Entry) -> Source:
        key = entry.uri.removeprefix(self.prefix)
        cue = self._cue_of(key)
        return Source(
            key=key,
            uri=entry.uri,
            num_bytes=entry.num_bytes,
            modified_s=entry.modified_s,
            version=entry.version,
            sidecar=self.sidecars.get(key, ""),
            cue=self.cues.get(cue, ""),
            cue_uri=self.prefix + cue if cue else "",
        )

    def _cue_of(self, key: str) -> str:
        stem = key.removesuffix(Path(key).suffix)
        names = (base + ending for base in (key, stem) for ending in (CUE, CUE.upper()))
        return next((name for name in names if name in self.cues), "")


def _is_hidden(key: str) -> bool:
    return any(name.startswith(".") and name not in (".", "..") for name in key.split("/"))


_ORDERS: dict[str, Callable[[Source], Any]] = {
    "path": attrgetter("key"),
    "newest": lambda source: (-source.modified_s, source.key),
    "largest": lambda source: (-source.num_bytes, source.key),
}


def _shown(name: str) -> str:
    """A name that can be printed, whatever it holds."""
    text = name.encode(errors="backslashreplace").decode()
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _why_refused(key: str) -> str:
    if CONTROL.search(key):
        return "its name holds control characters; rename it"
    try:
        key.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8 text; rename it"
    return "its name holds '.', '..' or empty parts between slashes; rename it"
