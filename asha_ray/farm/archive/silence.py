"""Files of an archive's runs, without what they say of one show."""

import json
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from asha_ray.errors import NotFoundError
from asha_ray.storage import Entry, basename, join, storage_of
from asha_ray.storage.ledger import ShowRecord

READS_AT_ONCE = 16
PLAIN_TITLE = 12
"""Letters of a title of one word that lines without quotes around it are searched for, too."""


class _Silenced(NamedTuple):
    """A file that names a show, and its content without that; empty where nothing is left."""

    uri: str
    content: bytes


def silence(
    folder: str, record: ShowRecord, live: Collection[str], *, dry_run: bool = False
) -> list[str]:
    """Take out of all runs' events, logs and heartbeats, and of the plan, what names a show.

    A line of an event or a log goes as a whole. Lines of other shows may go with it, whose paths
    end as the show's does: nothing depends on them. Every file of every run is read.

    Args:
        folder: the ledger's.
        record: the show's.
        live: runs whose heartbeat is left to their driver.
        dry_run: change nothing.

    Returns:
        Where the files are that named it.

    Raises:
        StorageError: if something cannot be read or written.
    """
    names = _pattern(record)
    if names is None:
        return []
    storage = storage_of(folder)
    changed = []
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="asha-silence") as threads:
        entries = _told(folder, live)
        for silenced in threads.map(lambda entry: _silenced(entry.uri, names), entries):
            if silenced is None:
                continue
            changed.append(silenced.uri)
            if dry_run:
                continue
            if silenced.content:
                storage.write(*silenced)
            else:
                storage.delete(silenced.uri)
    return changed


def _told(folder: str, live: Collection[str]) -> Iterator[Entry]:
    storage = storage_of(folder)
    runs = join(folder, "runs")
    for entry in storage.list(runs):
        run = entry.uri.removeprefix(f"{runs}/").partition("/")[0]
        if not (run in live and basename(entry.uri) == "heartbeat.json"):
            yield entry
    plan = join(folder, "plan.json")
    size = storage.size(plan)
    if size is not None:
        yield Entry(plan, size)


def _pattern(record: ShowRecord) -> re.Pattern[str] | None:
    """What a line holds that is about a show."""
    words = {record.key, record.output, record.show_id, record.render_id, json.dumps(record.title)}
    words.update(record.files)
    words.add(json.dumps(record.title, ensure_ascii=False))
    words -= {"", '""'}
    # One short word is in too many lines that are about something else.
    if " " in record.title or len(record.title) >= PLAIN_TITLE:
        words.add(record.title)
    words |= {json.dumps(word)[1:-1] for word in words if not word.startswith('"')}
    if not words:
        return None
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def _silenced(uri: str, names: re.Pattern[str]) -> _Silenced | None:
    """A file's content without what names a show; None where it does not."""
    try:
        content = storage_of(uri).read(uri)
    except NotFoundError:
        return None
    if not names.search(content.decode(errors="replace")):
        return None
    rest = _without_values if uri.endswith(".json") else _without_lines
    return _Silenced(uri, rest(content, lambda text: bool(names.search(text))))


def _without_lines(content: bytes, is_told: Callable[[str], bool]) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(line for line in lines if not is_told(line.decode(errors="replace")))


def _without_values(content: bytes, is_told: Callable[[str], bool]) -> bytes:
    """Without items of lists that name the show, and without an error that does."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return b""
    if not isinstance(data, dict):
        return b""
    kept = {}
    for name, value in data.items():
        if isinstance(value, list):
            kept[name] = [item for item in value if not is_told(_json(item))]
        elif not (name == "error" and is_told(str(value))):
            kept[name] = value
    return (json.dumps(kept, indent=1) + "\n").encode()


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
