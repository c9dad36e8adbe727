"""The storage protocol over plain strings: a local path, or `s3://bucket/key`.

Whatever is written appears whole or not at all, on a disk as in a bucket.
"""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from asha_ray.errors import NotFoundError, SpecError, StorageError

_USER = re.compile(r"(?<=://)(?:(?<=s3://)[^\s/@]*:\S*|[^\s/@]*:(?!\d*(?:[/?#\s]|$))\S*|[^\s/@]*)@")
"""`user:password@` of a uri. An AWS secret may hold slashes, while `:9000/` is a port."""
_SECRET = re.compile(
    r"\b([\w.-]*(?:signature|credential|token|secret|passw(?:or)?d|access[_-]?key|api[_-]?key)"
    r"[\w.-]*|sig|pwd)(=|%3D)[^\s&;,'\"<>]+",
    re.IGNORECASE,
)
"""What signs a link, or what a header or form carries under such a name."""
HIDDEN = "***"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """One file or object.

    Attributes:
        uri: of it.
        num_bytes: its size.
        modified_s: when it was last written, in seconds since 1970; no part of what it is.
        version: what changes when its content is replaced; no part of what it is either.
    """

    uri: str
    num_bytes: int
    modified_s: float = field(default=0.0, compare=False)
    version: str = field(default="", compare=False)


class Unfinished(NamedTuple):
    """What a process that was killed left half written; nothing that a list shows.

    Attributes:
        uri: on a disk the temporary file or folder itself, in a bucket the object it should become.
        num_bytes: what it takes up.
        upload_id: which of a bucket's uploads it is; empty on a disk.
    """

    uri: str
    num_bytes: int
    upload_id: str = ""


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

    def list(
        self, uri: str, *, after: str = "", refuse: Callable[[str], None] | None = None
    ) -> Iterator[Entry]:
        """Every file below a folder, sorted by uri; nothing where there is no such folder.

        Args:
            uri: the folder.
            after: only what comes after this path in it, whether that is there or not.
            refuse: hears of names that not every storage may have, which are left out then; a
                bucket's are left out in any case.
        """

    def folders(self, uri: str) -> Iterator[str]:
        """The names of the folders right below a folder, sorted; nothing where there is none."""

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

    def unfinished(self, uri: str) -> Iterator[Unfinished]:
        """What killed processes left half written below a folder, and nobody works on any more."""

    def discard(self, left: Unfinished) -> None:
        """Remove what `unfinished` found; fine where it is gone, or in use again."""


def is_s3(uri: str) -> bool:
    """Whether a uri lies in a bucket."""
    return uri.startswith("s3://")


def storage_of(uri: str) -> Storage:
    """The storage that keeps `uri`.

    Raises:
        SpecError: if it has another scheme than `s3://`, or holds credentials.
    """
    require_plain(uri)
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if scheme and scheme[0] == "s3://":
        return _s3()
    if scheme:
        raise SpecError(f"path {uri}: {scheme[1]}:// is not supported; give a local path or s3://")
    from asha_ray.storage.local import LocalStorage

    return LocalStorage()


def require_plain(uri: str) -> None:
    """Make sure that a path holds no secret, since paths are shown, logged and kept in manifests.

    Raises:
        SpecError: if it does, or could name no file at all.
    """
    shown = redacted(uri)
    if shown != uri and "://" in uri:
        raise SpecError(
            f"path {shown}: it holds credentials or a signature; give a plain path, and "
            "credentials by AWS_PROFILE or the like"
        )
    if "\0" in uri:
        raise SpecError(f"path {uri!r}: no file has such a name; check the path")


def redacted(text: str, *secrets: str) -> str:
    """A text with no credentials in it.

    Hides `user:password@` of uris, signatures of links, and each of `secrets`, wherever they are.
    `s3://bucket/key` and local paths stay as they are.

        >>> redacted("no answer from https://me:pass@host/x?X-Amz-Signature=5e")
        'no answer from https://***@host/x?X-Amz-Signature=***'
    """
    # By words, since whoever repeats a line's end may write it as `\n`; nothing short is a secret.
    for word in {word for secret in secrets for word in secret.split() if len(word) >= 4}:
        text = text.replace(word, HIDDEN)
    if "@" in text:
        text = _USER.sub(f"{HIDDEN}@", text)
    if "=" in text or "%3" in text:  # a search through plain paths, as most are, would cost more
        text = _SECRET.sub(rf"\1\2{HIDDEN}", text)
    return text


@functools.cache
def _s3() -> Storage:
    from asha_ray.storage.s3 import S3Storage

    return S3Storage()


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts below it; a part may be several with slashes between.

    Raises:
        StorageError: if the result would not lie below `uri`, or a part is none.
    """
    for part in parts:
        if not is_below(part):
            raise StorageError(
                f"path {redacted(uri)}: {redacted(part)!r} does not lie below it; give names "
                "without '..', empty parts or control characters"
            )
    return "/".join([uri.rstrip("/"), *parts]) if parts else uri


def is_below(part: str) -> bool:
    """Whether a relative path stays in its folder, in a bucket as on a disk."""
    names = part.split("/")
    return not CONTROL.search(part) and not any(name in ("", ".", "..") for name in names)


def safe_name(text: str, what: str) -> str:
    """`text`, which comes from a file and becomes one part of a path.

    Args:
        text: letters, digits, `.`, `_` and `-`; 128 at most, and no `..`.
        what: what it is, for the error.

    Raises:
        StorageError: if it is anything else.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise StorageError(
            f"{what} {redacted(text)[:40]!r}: it is no name (letters, digits, '.', '_' and '-', at "
            "most 128); the file that it comes from is damaged, check or delete it"
        )
    return text


def require_file(path: Path) -> None:
    """Make sure that a local file that shall be uploaded is there.

    Raises:
        NotFoundError: if it is not.
    """
    if not path.is_file():
        raise NotFoundError(f"reading {redacted(str(path))}: there is no such file; check the path")


def parent(uri: str) -> str:
    """The folder or prefix that holds `uri`."""
    if is_s3(uri):
        return uri.rstrip("/").rpartition("/")[0]
    return str(Path(uri).absolute().parent)


def basename(uri: str) -> str:
    """The last part of `uri`."""
    return uri.rstrip("/").rpartition("/")[2]
