"""What a driver tells of a render or a job while it works: events, a log, and a heartbeat.

In the folder of what is worked on, `events/<driver>-<seq>.jsonl` hold what happened, a line each,
and `logs/<driver>-<seq>.log` what was said to people, in small files since a bucket cannot append;
`heartbeat.json` tells how far it is and that its driver lives. Nothing depends on them but people:
a driver that cannot write them works on.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from asha_ray.errors import AshaError, NotFoundError, StorageError
from asha_ray.storage.base import basename, join, storage_of

EVENTS_EVERY_S = 5.0
HEARTBEAT_EVERY_S = 5.0
DEAD_AFTER_S = 60.0
"""A driver that was not heard of for so long is dead, or as good as dead."""
LAST_WORDS_S = 15.0
"""Longer nobody waits at the end for a storage that does not answer."""
MAX_WAITING = 50_000
MAX_NUMBER = 2.0**63
"""Events that are kept for a storage that does not answer; older ones are dropped."""
VERSION = 1


class Journal:
    """The events, the log and the heartbeat of one driver's work. Used as a context.

    Args:
        folder: of what is worked on; see `WorkRoot.render_uri`.
        subject: what it is, `render` or `job`.
        look: called in this journal's thread every few seconds, until the end.
        facts: of the heartbeat, that do not change.

    Attributes:
        driver: what this process is called there.
        folder: as given.
    """

    def __init__(
        self,
        folder: str,
        subject: str = "render",
        look: Callable[[], None] = lambda: None,
        **facts: Any,
    ) -> None:
        self.driver = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}{secrets.token_hex(2)}"
        self.folder, self._subject, self._look = folder, subject, look
        self._storage = storage_of(folder)
        self._facts = {
            "version": VERSION,
            "driver": self.driver,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": now(),
            **facts,
        }
        self._status: dict[str, Any] = {"state": "running"}
        self._lock = threading.Lock()
        self._events = _Lines("events", "jsonl")
        self._log = _Lines("logs", "log")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="asha-journal", daemon=True)

    def tell(self, event: str, **fields: Any) -> None:
        """Something happened; returns at once."""
        line = json.dumps({"time": now(), "event": event, **fields}, default=str)
        with self._lock:
            self._events.add(line)

    def say(self, text: str) -> None:
        """Something for people to read; returns at once."""
        with self._lock:
            for line in text.splitlines():
                self._log.add(f"{now()}  {line}")

    def status(self, **fields: Any) -> None:
        """How far it is, for the next heartbeat."""
        with self._lock:
            self._status |= fields

    def beat(self) -> None:
        """Say now that this driver lives.

        Raises:
            StorageError: if the work root cannot be written.
        """
        with self._lock:
            data = {**self._facts, "time": now(), **self._status}
        content = (json.dumps(data, indent=1, default=str) + "\n").encode()
        self._storage.write(join(self.folder, "heartbeat.json"), content)

    def __enter__(self) -> Self:
        """Begin to beat."""
        self.tell(f"{self._subject}-started", driver=self.driver, host=self._facts["host"])
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        """Write what is left, and how it ended."""
        state = "done" if kind is None else "failed" if issubclass(kind, Exception) else "stopped"
        self.status(state=state, **({"error": str(error)} if state == "failed" else {}))
        self.tell(
            f"{self._subject}-{state}", **({"error": str(error)} if state == "failed" else {})
        )
        self._ended.set()
        self._thread.join(LAST_WORDS_S)

    def _work(self) -> None:
        last_beat = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(EVENTS_EVERY_S)
            # The work itself finds out whether it can be stored; and one that cannot be written or
            # looked for must not keep the heart from beating.
            if not ended:
                with suppress(AshaError):
                    self._look()
            for lines in (self._events, self._log):
                with suppress(StorageError):
                    self._write(lines)
            if ended or time.monotonic() - last_beat > HEARTBEAT_EVERY_S - EVENTS_EVERY_S / 2:
                with suppress(StorageError):
                    self.beat()
                    last_beat = time.monotonic()

    def _write(self, lines: "_Lines") -> None:
        with self._lock:
            taken = lines.take()
        if not taken:
            return
        name = f"{self.driver}-{lines.num_files:06d}.{lines.suffix}"
        try:
            content = ("\n".join(taken) + "\n").encode()
            self._storage.write(join(self.folder, lines.folder, name), content)
        except StorageError:
            with self._lock:
                lines.waiting = taken + lines.waiting
            raise
        lines.num_files += 1


@dataclass
class _Lines:
    """Lines that wait to be written into the next of many small files."""

    folder: str
    suffix: str
    waiting: list[str] = field(default_factory=list)
    num_dropped: int = 0
    num_files: int = 0

    def add(self, line: str) -> None:
        self.waiting.append(line)
        if len(self.waiting) > MAX_WAITING:
            self.num_dropped += 1
            del self.waiting[0]

    def take(self) -> list[str]:
        """All that waits, which waits no more."""
        taken, self.waiting = self.waiting, []
        if taken and self.num_dropped:
            lost = {"time": now(), "event": f"{self.folder}-dropped", "count": self.num_dropped}
            taken.insert(0, json.dumps(lost))
        self.num_dropped = 0
        return taken


def read_events(folder: str) -> Iterator[Mapping[str, Any]]:
    """The events in a folder as they are stored, a driver's in order; what is torn is left out."""
    for _, line in _lines_in(folder, "events", ".jsonl"):
        event = _json(line)
        if event is not None and "event" in event:
            yield event


def read_log(folder: str, after: str = "") -> Iterator[tuple[str, str]]:
    """What was said to people, in order, a line each, with the name of the file it is in.

    Args:
        folder: of what is worked on.
        after: a file's name; only later ones are read.
    """
    for name, line in _lines_in(folder, "logs", ".log", after):
        yield name, line.decode(errors="replace")


def _lines_in(folder: str, name: str, suffix: str, after: str = "") -> Iterator[tuple[str, bytes]]:
    storage = storage_of(folder)
    for entry in storage.list(join(folder, name)):
        file = basename(entry.uri)
        if file.endswith(suffix) and file > after:
            for line in storage.read(entry.uri).splitlines():
                yield file, line


def read_heartbeat(folder: str) -> Mapping[str, Any] | None:
    """What a folder's last driver said last; None where there was none."""
    try:
        return _json(storage_of(folder).read(join(folder, "heartbeat.json")))
    except NotFoundError:
        return None


def age_s(heartbeat: Mapping[str, Any]) -> float:
    """Seconds since a heartbeat; infinite where its time cannot be read."""
    then = moment(heartbeat.get("time"))
    return (datetime.now(UTC) - then).total_seconds() if then else float("inf")


def is_alive(heartbeat: Mapping[str, Any] | None) -> bool:
    """Whether a driver works on a render: it says so, and said it just now."""
    if heartbeat is None or heartbeat.get("state") != "running":
        return False
    return age_s(heartbeat) < DEAD_AFTER_S


def now() -> str:
    """This moment as text, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def moment(text: Any) -> datetime | None:
    """A moment that anybody may have written, in UTC, as which it counts where it names no zone.

    None where it is none, or lies before the first year or after the last.
    """
    try:
        found = datetime.fromisoformat(str(text))
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def number(data: Mapping[str, Any], name: str) -> float:
    """A number of what anybody may have written, 0..2^63; 0 where there is none."""
    value = data.get(name)
    return float(value) if isinstance(value, int | float) and 0 <= value <= MAX_NUMBER else 0.0


def _json(content: bytes) -> Mapping[str, Any] | None:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
