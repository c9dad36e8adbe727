"""Stems in a work root, part by part: written once, found again by what they are the stems of.

`stems/<key>/00003-drums.flac` and so on for each stem of a part, then the part's record
`stems/<key>/00003.json`, and when all parts are there, `stems/<key>/track.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asha_ray.errors import StorageError
from asha_ray.storage.base import Storage, join, safe_name, storage_of
from asha_ray.storage.keys import file_digest
from asha_ray.values import MAX_SAMPLE_RATE

TRACK = "track.json"
MAX_RECORD_BYTES = 64 << 10
BOUNDS = {
    "number": 10**6,
    "start": 10**13,
    "stop": 10**13,
    "sample_rate": MAX_SAMPLE_RATE,
    "bits": 32,
}
"""What a part's numbers are at most; none is negative."""


@dataclass(frozen=True)
class StemFile:
    """One stem of a part, as it must be found: sha256 and size of its file."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class StemPart:
    """A part of a track whose stems are stored.

    Attributes:
        number: position in the track, from 0.
        start: first sample.
        stop: sample after the last.
        sample_rate: Hz.
        bits: the power of two that the files' full scale stands for.
        files: stem -> its file.
    """

    number: int
    start: int
    stop: int
    sample_rate: int
    bits: int
    files: Mapping[str, StemFile]


class StemStore:
    """The stems of one track by one separator.

    Args:
        work: a work root, local or `s3://`.
        key: hash of the sound and of all that determines its stems.
    """

    def __init__(self, work: str, key: str) -> None:
        self.uri = join(work, "stems", safe_name(key, "stems' key"))
        self._storage: Storage = storage_of(work)

    def commit(self, part: StemPart, paths: Mapping[str, Path]) -> None:
        """Store a part's local files, then its record."""
        for stem, path in paths.items():
            self._storage.upload(path, self._file_uri(part.number, stem))
        self._write(self._record_uri(part.number), asdict(part))

    def find(self, number: int) -> StemPart | None:
        """A part, if it is finished and its files are as its record says."""
        data = self._read(self._record_uri(number))
        try:
            part = _part(data)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, StorageError):
            return None  # a torn record counts as none; the part is separated again
        sizes = {stem: self._storage.size(self._file_uri(number, stem)) for stem in part.files}
        good = all(sizes[stem] == file.num_bytes for stem, file in part.files.items())
        return part if good and part.number == number else None

    def fetch(self, part: StemPart, stem: str, path: Path) -> None:
        """Copy a stem of a part to a local file and check it against its record.

        Raises:
            StorageError: if it is not the file that was stored.
        """
        uri = self._file_uri(part.number, stem)
        self._storage.download(uri, path)
        if file_digest(path) != part.files[stem].sha256:
            self._storage.delete(self._record_uri(part.number))
            self._storage.delete(join(self.uri, TRACK))
            raise StorageError(
                f"reading the stem {uri}: it has changed since it was separated; run the command "
                "again, and it alone is made anew"
            )

    def finish(self, num_parts: int, num_replaced: int = 0, audio_digest: str = "") -> None:
        """Note that these are all parts of a track, its damaged samples, and its sound file."""
        data = {"parts": num_parts, "num_replaced": num_replaced, "audio": audio_digest}
        self._write(join(self.uri, TRACK), data)

    def num_replaced(self) -> int:
        """Damaged samples of a finished track, which count as silence."""
        data = self._read(join(self.uri, TRACK))
        count = data.get("num_replaced") if isinstance(data, dict) else None
        return count if isinstance(count, int) else 0

    def all_parts(self) -> list[StemPart] | None:
        """Every part in order, if the whole track was separated and is still there."""
        data = self._read(join(self.uri, TRACK))
        num_parts = data.get("parts") if isinstance(data, dict) else None
        if not isinstance(num_parts, int) or num_parts < 1:
            return None
        parts = []
        for number in range(num_parts):
            part = self.find(number)
            if part is None:
                return None
            parts.append(part)
        return parts

    def _read(self, uri: str) -> Any:
        size = self._storage.size(uri)
        if size is None or size > MAX_RECORD_BYTES:
            return None
        try:
            return json.loads(self._storage.read(uri))
        except (ValueError, RecursionError):
            return None

    def _write(self, uri: str, data: Mapping[str, Any]) -> None:
        self._storage.write(uri, (json.dumps(data, indent=1) + "\n").encode())

    def _file_uri(self, number: int, stem: str) -> str:
        return join(self.uri, f"{number:05d}-{safe_name(stem, 'stem')}.flac")

    def _record_uri(self, number: int) -> str:
        return join(self.uri, f"{number:05d}.json")


def stem_file(path: Path) -> StemFile:
    """What a local file must be found as."""
    return StemFile(file_digest(path), path.stat().st_size)


def _part(data: Any) -> StemPart:
    files = {
        safe_name(str(stem), "stem"): StemFile(str(file["sha256"]), int(file["num_bytes"]))
        for stem, file in data["files"].items()
    }
    numbers = {name: int(data[name]) for name in BOUNDS}
    if not all(0 <= numbers[name] <= most for name, most in BOUNDS.items()):
        raise ValueError("a number is out of bounds")
    return StemPart(files=files, **numbers)
