"""Lists of files that leave out what asha-ray keeps for itself, of which there may be millions."""

from collections.abc import Callable, Collection, Iterator

from asha_ray.storage import Entry, storage_of

KEPT = (".asha", ".ledger")
"""Folders of segments and of records, wherever they lie."""
LAST = "\U0010ffff"
"""Comes after every name that a folder can hold."""


def files_below(
    uri: str, refuse: Callable[[str], None] = lambda _: None, but: Collection[str] = ()
) -> Iterator[tuple[str, Entry]]:
    """Every file below a folder with its path in it, sorted.

    Args:
        uri: the folder, with no slash at its end.
        refuse: hears of names that no path may have; of some more than once.
        but: folders in it that are left out, as `videos/`.
    """
    storage, prefix, after = storage_of(uri or "/"), f"{uri}/", ""
    while True:
        for entry in storage.list(uri or "/", after=after, refuse=refuse):
            key = entry.uri.removeprefix(prefix)
            left_out = _left_out(key, but)
            if left_out:
                # Asking anew for what comes after it saves asking for all that lies in it.
                after = left_out + LAST
                break
            yield key, entry
        else:
            return


def _left_out(key: str, but: Collection[str]) -> str:
    """The folder on a path that is left out, or empty."""
    for folder in but:
        if key.startswith(folder):
            return folder
    for name in KEPT:
        before, kept, _ = f"/{key}".partition(f"/{name}/")
        if kept:
            return f"{before}{kept}"[1:]
    return ""
