"""Where results go and where work is kept meanwhile."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asha_ray.storage import join, parent, storage_of
from asha_ray.storage.base import is_s3


@contextmanager
def work_root(work: str | None, beside: str | None = None) -> Iterator[str]:
    """A work root that is kept, if one is named, or else one that lasts as long as the context.

    Args:
        work: a folder or prefix.
        beside: an output; a root for a while is made on its disk, where workers see it too, and
            not in the system's temporary folder, which may be small. Beside an output in a bucket
            it is `.asha`, and kept.
    """
    if work is not None:
        yield work
        return
    if beside is not None and is_s3(beside):
        yield join(parent(beside), ".asha")
        return
    folder = None
    if beside is not None:
        folder = Path(beside).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".asha-work-", dir=folder) as name:
        yield name


def put(uri: str, write: Callable[[Path], None]) -> None:
    """Let `write` make a local file, then put it at `uri`, whole."""
    with tempfile.TemporaryDirectory(prefix="asha-") as folder:
        local = Path(folder) / "file"
        write(local)
        storage_of(uri).upload(local, uri)
