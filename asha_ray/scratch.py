"""Temporary files that outlive nobody: each is locked by whoever uses it, and swept when it is not.

A process that is killed cannot put away what it has begun. Its locks go with it, so whoever comes
next can tell what is left over from what is in use, on one machine or on a disk that many share.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked, and nothing swept
    fcntl = None  # type: ignore[assignment]

PREFIXES = ("asha-", ".asha-")
LOCK = ".alive"
MADE = re.compile(r"-[a-z0-9_]{8}$")
"""How the names of temporary folders end."""
NEWBORN, UNFINISHED = ".new", ".tmp"
"""Endings of a file before it is locked and after."""
NEWBORN_S = 60.0
"""What has no lock yet, and is younger, may be somebody's first step."""


@contextmanager
def scratch_folder(kind: str, beside: Path | None = None) -> Iterator[Path]:
    """A private folder for as long as the context lasts.

    Args:
        kind: a word for people who find it, as in `asha-chunk-…`.
        beside: the folder to make it in, hidden there; the system's for temporary files where None.
    """
    prefix = f"asha-{kind}-" if beside is None else f".asha-{kind}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=beside, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        lock = _locked_file(folder, LOCK)
        try:
            yield folder
        finally:
            _empty(folder)
            os.close(lock)


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """A private file in `folder`, empty, which may be renamed away before the context ends."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=PREFIXES[1], suffix=NEWBORN)
    path = Path(name)
    try:
        _lock(handle)
        path = path.rename(path.with_suffix(UNFINISHED))
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_scratch(path: Path) -> bool:
    """Whether a path is, or lies in, somebody's temporary file of ours."""
    return any(part.startswith(PREFIXES[1]) for part in path.parts)


def leftovers(folder: Path) -> list[Path]:
    """What lies in `folder`, not below it, and nobody uses any more."""
    if fcntl is None or not folder.is_dir():
        return []
    found = []
    with suppress(OSError):  # gone meanwhile, or not ours to look at
        for entry in os.scandir(folder):
            with suppress(OSError):
                if entry.name.startswith(PREFIXES) and _is_left_over(entry):
                    found.append(Path(entry.path))
    return sorted(found)


def sweep(*folders: Path) -> int:
    """Delete what is left over in each of `folders`; returns how much that was."""
    num_swept = 0
    for path in [path for folder in folders for path in leftovers(folder)]:
        with suppress(OSError):
            if path.is_dir():
                _empty(path)
                shutil.rmtree(path)
            else:
                path.unlink()
            num_swept += 1
    return num_swept


def _empty(folder: Path) -> None:
    """Delete all but the lock: whoever is killed meanwhile leaves what can be told and swept."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()


def system_folder() -> Path:
    """Where this process's temporary files lie when no place is named."""
    return Path(tempfile.gettempdir())


def _is_left_over(entry: "os.DirEntry[str]") -> bool:
    status = entry.stat(follow_symlinks=False)
    if entry.is_symlink() or status.st_uid != os.getuid():
        return False
    if entry.is_dir(follow_symlinks=False):
        lock = Path(entry.path) / LOCK
        if not lock.exists():  # nothing of ours that is full has no lock
            # Empty, and named as we name them: else it is a folder that somebody has prepared.
            ours = MADE.search(entry.name) and status.st_mode & 0o077 == 0
            return bool(ours) and _is_old(status) and not any(Path(entry.path).iterdir())
        return _is_free(lock)
    if not entry.name.startswith(PREFIXES[1]):
        return False
    if entry.name.endswith(UNFINISHED):
        return _is_free(Path(entry.path))
    return entry.name.endswith(NEWBORN) and _is_old(status)


def _is_old(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime > NEWBORN_S


def _locked_file(folder: Path, name: str) -> int:
    """Make a file that is locked from the moment it can be found under its name."""
    handle, made = tempfile.mkstemp(dir=folder)
    _lock(handle)
    Path(made).rename(folder / name)
    return handle


def _lock(handle: int) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a disk that knows no locks: it is swept by hand
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_free(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)  # NFS locks nothing that is open for reading alone
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
