"""Files on a local disk: written beside their place, then renamed into it."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asha_ray.errors import NotFoundError, StorageError, UnwritableError
from asha_ray.scratch import is_scratch, leftovers, scratch_file
from asha_ray.storage.base import CONTROL, Entry, Unfinished, redacted, require_file
from asha_ray.storage.patience import full_disk_patience_s, patiently

REMEDIES = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.EACCES: "check its permissions, or choose another place",
    errno.EPERM: "check its permissions, or choose another place",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}
DISK_REMEDY = "check the path and the disk"


class LocalStorage:
    """`Storage` on local paths.

    Where the disk is full, a write is tried again for half a minute, with pauses that grow.
    """

    def read(self, uri: str) -> bytes:
        """The whole content."""
        with _explained("reading", uri):
            return Path(uri).read_bytes()

    def write(self, uri: str, data: bytes) -> None:
        """Replace the whole content; folders are made."""
        _put(uri, lambda temporary: temporary.write_bytes(data))

    def size(self, uri: str) -> int | None:
        """Bytes of a file, or None where there is none."""
        path = Path(uri)
        with _explained("reading", uri):
            return path.stat().st_size if path.is_file() else None

    def version(self, uri: str) -> str | None:
        """The file's size and time of change, or None where there is none."""
        path = Path(uri)
        with _explained("reading", uri):
            if not path.is_file():
                return None
            found = path.stat()
            return f"{found.st_size} {found.st_mtime_ns}"

    def list(
        self,
        uri: str,
        *,
        after: str = "",
        refuse: Callable[[str], None] | None = None,
    ) -> Iterator[Entry]:
        """Every file below a folder, sorted by uri."""
        with _explained("listing", uri):
            yield from _files_below(Path(uri), after, refuse)

    def folders(self, uri: str) -> Iterator[str]:
        """The names of the folders right below a folder, sorted."""
        with _explained("listing", uri), suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(uri) as scanned:
                names = [item.name for item in scanned if item.is_dir(follow_symlinks=False)]
            yield from sorted(name for name in names if not is_scratch(Path(name)))

    def upload(self, path: Path, uri: str) -> None:
        """Put a finished local file at `uri`, whole."""
        require_file(path)
        _put(uri, lambda temporary: shutil.copyfile(path, temporary))

    def download(self, uri: str, path: Path) -> None:
        """Copy to a local file."""
        with _explained("reading", uri):
            shutil.copyfile(uri, path)

    def delete(self, uri: str) -> None:
        """Remove a file; fine where there is none."""
        with _explained("deleting", uri):
            Path(uri).unlink(missing_ok=True)

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[Path]:
        """The file itself."""
        with _explained("reading", uri):
            exists = Path(uri).exists()
        if not exists:
            raise NotFoundError(f"reading {redacted(uri)}: there is no such file; check the path")
        yield Path(uri)

    def check_writable(self, uri: str) -> None:
        """Raise at once where `uri` could not be written later."""
        path = Path(uri)
        try:
            with _explained("writing", uri):
                if path.is_dir():
                    raise IsADirectoryError(uri)
                with _appearing(path, publish=False):
                    pass
        except StorageError as error:
            raise UnwritableError(str(error)) from error

    def unfinished(self, uri: str) -> Iterator[Unfinished]:
        """Temporary files and folders below a folder that nobody holds."""
        for name, folders, _ in os.walk(uri):
            with _explained("listing", uri):
                found = [path for path in leftovers(Path(name)) if _is_ours(path)]
                lefts = [Unfinished(str(path), _num_bytes(path)) for path in found]
            folders[:] = sorted(folder for folder in folders if not _is_ours(Path(folder)))
            yield from lefts

    def discard(self, left: Unfinished) -> None:
        """Delete a temporary file or folder, unless somebody holds it."""
        path = Path(left.uri)
        with _explained("deleting", left.uri):
            if not _is_ours(path) or path not in leftovers(path.parent):
                return
            with suppress(FileNotFoundError):  # another has had the same idea
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _is_ours(path: Path) -> bool:
    return is_scratch(Path(path.name))


def _num_bytes(path: Path) -> int:
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):  # gone meanwhile
            total += file.lstat().st_size if file.is_file() else 0
    return total


def _put(uri: str, fill: Callable[[Path], object]) -> None:
    """Fill a temporary file, which takes its name when it is whole."""

    def attempt() -> None:
        with _explained("writing", uri), _appearing(Path(uri)) as temporary:
            fill(temporary)

    patiently(attempt, full_disk_patience_s)


def _files_below(
    folder: Path, after: str = "", refuse: Callable[[str], None] | None = None
) -> Iterator[Entry]:
    """Files below a folder in the order of their uris; one folder at a time is held in memory."""
    try:
        with os.scandir(folder) as scanned:
            # As in a uri a slash follows a folder's name: `a/b` comes after `a-b` and before `a0`.
            names = sorted(
                item.name + "/" * item.is_dir(follow_symlinks=False)
                for item in scanned
                if not is_scratch(Path(item.name))
            )
    except (FileNotFoundError, NotADirectoryError):
        return  # there is none, or it is gone meanwhile
    for name in names:
        begins_inside = name.endswith("/") and after.startswith(name)
        if name <= after and not begins_inside:
            continue
        path = folder / name
        if refuse is not None and not _can_be_said(name):
            refuse(str(path))
            continue
        if name.endswith("/"):
            yield from _files_below(path, after[len(name) :] if begins_inside else "", refuse)
            continue
        with suppress(FileNotFoundError):  # gone meanwhile
            if path.is_file():
                found = path.stat()
                version = f"{found.st_size} {found.st_mtime_ns}"
                yield Entry(str(path), found.st_size, found.st_mtime, version)


def _can_be_said(name: str) -> bool:
    """Whether a name is text without control characters; a disk knows others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not CONTROL.search(name)


@contextmanager
def _appearing(path: Path, *, publish: bool = True) -> Iterator[Path]:
    """A private temporary file beside `path` that takes its name at the end, or vanishes."""
    path = path.absolute()
    made = _make_folders(path.parent)
    try:
        with scratch_file(path.parent) as temporary:
            yield temporary
            if publish:
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(path)
    finally:
        if not publish:
            for folder in made:
                with suppress(OSError):  # someone else has put something there meanwhile
                    folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, deepest first."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def _explained(doing: str, uri: str) -> Iterator[None]:
    shown = redacted(uri)
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"{doing} {shown}: there is no such file; check the path") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageError(
            f"{doing} {shown}: a part of the path is a file, not a folder; choose another place"
        ) from error
    except IsADirectoryError as error:
        raise StorageError(f"{doing} {shown}: it is a folder; give the name of a file") from error
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = REMEDIES.get(error.errno or 0, DISK_REMEDY)
        raise StorageError(f"{doing} {shown}: {reason}; {remedy}") from error
