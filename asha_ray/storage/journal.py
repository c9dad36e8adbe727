"""What a driver tells of its render while it works: events to read later, and a heartbeat.

`renders/<render_id>/events/<driver>-<seq>.jsonl` hold what happened, a line each, in small files
since a bucket cannot append; `heartbeat.json` tells how far the render is and that its driver
lives. Nothing depends on them but people: a driver that cannot write them works on.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

from asha_ray.errors import NotFoundError, StorageError
from asha_ray.storage.base import basename, join, storage_of
from asha_ray.storage.work import WorkRoot

EVENTS_EVERY_S = 5.0
HEARTBEAT_EVERY_S = 10.0
DEAD_AFTER_S = 60.0
"""A driver that was not heard of for so long is dead, or as good as dead."""
LAST_WORDS_S = 15.0
"""Longer nobody waits at the end for a storage that does not answer."""
MAX_WAITING = 50_000
"""Events that are kept for a storage that does not answer; older ones are dropped."""
VERSION = 1


class Journal:
    """The events and the heartbeat of one driver's work on a render. Used as a context.

    Args:
        work: a work root.
        render_id: the render.
        facts: of the heartbeat, that do not change.
    """

    def __init__(self, work: str, render_id: str, **facts: Any) -> None:
        self.driver = f"{datetime.now(UTC):%Y%m%dT%H%M%S}{secrets.token_hex(3)}"
        self._folder = WorkRoot(work).render_uri(render_id)
        self._storage = storage_of(work)
        self._facts = {
            "version": VERSION,
            "render_id": render_id,
            "driver": self.driver,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": now(),
            **facts,
        }
        self._status: dict[str, Any] = {"state": "running"}
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._num_dropped = 0
        self._num_files = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="asha-journal", daemon=True)

    def tell(self, event: str, **fields: Any) -> None:
        """Something happened; returns at once."""
        line = json.dumps({"time": now(), "event": event, **fields}, default=str)
        with self._lock:
            self._waiting.append(line)
            if len(self._waiting) > MAX_WAITING:
                self._num_dropped += 1
                del self._waiting[0]

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
        self._storage.write(join(self._folder, "heartbeat.json"), content)

    def __enter__(self) -> Self:
        """Begin to beat."""
        self.tell("render-started", driver=self.driver, host=self._facts["host"])
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        """Write what is left, and how it ended."""
        state = "done" if kind is None else "failed" if issubclass(kind, Exception) else "stopped"
        self.status(state=state, **({"error": str(error)} if state == "failed" else {}))
        self.tell(f"render-{state}", **({"error": str(error)} if state == "failed" else {}))
        self._ended.set()
        self._thread.join(LAST_WORDS_S)

    def _work(self) -> None:
        last_beat = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(EVENTS_EVERY_S)
            with suppress(StorageError):  # the render itself finds out whether it can be stored
                self._write_events()
                if ended or time.monotonic() - last_beat > HEARTBEAT_EVERY_S - EVENTS_EVERY_S / 2:
                    self.beat()
                    last_beat = time.monotonic()

    def _write_events(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
            dropped, self._num_dropped = self._num_dropped, 0
        if not lines:
            return
        if dropped:
            lost = {"time": now(), "event": "events-dropped", "count": dropped}
            lines.insert(0, json.dumps(lost))
        name = f"{self.driver}-{self._num_files:06d}.jsonl"
        try:
            content = ("\n".join(lines) + "\n").encode()
            self._storage.write(join(self._folder, "events", name), content)
        except StorageError:
            with self._lock:
                self._waiting = lines + self._waiting
            raise
        self._num_files += 1


def read_events(work: str, render_id: str) -> Iterator[Mapping[str, Any]]:
    """A render's events as they are stored, a driver's in order; what is torn is left out."""
    folder = join(WorkRoot(work).render_uri(render_id), "events")
    storage = storage_of(work)
    for entry in storage.list(folder):
        if not basename(entry.uri).endswith(".jsonl"):
            continue
        for line in storage.read(entry.uri).splitlines():
            event = _json(line)
            if event is not None and "event" in event:
                yield event


def read_heartbeat(work: str, render_id: str) -> Mapping[str, Any] | None:
    """What a render's last driver said last; None where there was none."""
    try:
        uri = join(WorkRoot(work).render_uri(render_id), "heartbeat.json")
        return _json(storage_of(work).read(uri))
    except NotFoundError:
        return None


def age_s(heartbeat: Mapping[str, Any]) -> float:
    """Seconds since a heartbeat; infinite where its time cannot be read."""
    try:
        then = datetime.fromisoformat(str(heartbeat["time"]))
        return (datetime.now(UTC) - then).total_seconds()
    except (KeyError, ValueError, TypeError):
        return float("inf")


def is_alive(heartbeat: Mapping[str, Any] | None) -> bool:
    """Whether a driver works on a render: it says so, and said it just now."""
    if heartbeat is None or heartbeat.get("state") != "running":
        return False
    return age_s(heartbeat) < DEAD_AFTER_S


def now() -> str:
    """This moment as text, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json(content: bytes) -> Mapping[str, Any] | None:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
