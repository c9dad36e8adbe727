"""The storage protocol over plain strings: a local path, or `s3://bucket/key`.

Whatever is written appears whole or not at all, on a disk as in a bucket.
"""

import functools
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from asha_ray.errors import NotFoundError, SpecError


class Entry(NamedTuple):
    """One file or object: its uri, and its size in bytes."""

    uri: str
    num_bytes: int


class Storage(Protocol):
    """What the farm needs of a place that keeps files.

    Every method raises `NotFoundError` where something to be read does not exist, and
    `StorageError` where the place refuses or cannot be reached.
    """

    def read(self, uri: str) -> bytes:
        """The whole content."""

    def write(self, uri: str, data: bytes) -> None:
        """Replace the whole content; folders are made."""

    def size(self, uri: str) -> int | None:
        """Bytes of a file, or None where there is none."""

    def version(self, uri: str) -> str | None:
        """What changes when a file's content is replaced, or None where there is none."""

    def list(self, uri: str) -> Iterator[Entry]:
        """Every file below a folder, sorted by uri; nothing where there is no such folder."""

    def upload(self, path: Path, uri: str) -> None:
        """Put a finished local file at `uri`, whole."""

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file."""

    def delete(self, uri: str) -> None:
        """Remove a file; fine where there is none."""

    def local_copy(self, uri: str) -> AbstractContextManager[Path]:
        """A local file with this content while the context lasts; not to be written to."""

    def check_writable(self, uri: str) -> None:
        """Raise `UnwritableError` at once where `uri` could not be written later."""


def is_s3(uri: str) -> bool:
    """Whether a uri lies in a bucket."""
    return uri.startswith("s3://")


def storage_of(uri: str) -> Storage:
    """The storage that keeps `uri`.

    Raises:
        SpecError: if it has another scheme than `s3://`.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if scheme and scheme[1] == "s3":
        return _s3()
    if scheme:
        raise SpecError(f"path {uri}: {scheme[1]}:// is not supported; give a local path or s3://")
    from asha_ray.storage.local import LocalStorage

    return LocalStorage()


@functools.cache
def _s3() -> Storage:
    from asha_ray.storage.s3 import S3Storage

    return S3Storage()


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts below it."""
    return "/".join([uri.rstrip("/"), *parts]) if parts else uri


def require_file(path: Path) -> None:
    """Make sure that a local file that shall be uploaded is there.

    Raises:
        NotFoundError: if it is not.
    """
    if not path.is_file():
        raise NotFoundError(f"reading {path}: there is no such file; check the path")


def parent(uri: str) -> str:
    """The folder or prefix that holds `uri`."""
    if is_s3(uri):
        return uri.rstrip("/").rpartition("/")[0]
    return str(Path(uri).absolute().parent)


def basename(uri: str) -> str:
    """The last part of `uri`."""
    return uri.rstrip("/").rpartition("/")[2]
