"""Records and runs of an archive that was never made."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asha_ray.storage.ledger import ShowRecord


def show_id_of(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def a_show(key: str, state: Any = "done", **fields: Any) -> ShowRecord:
    """A show of an hour at 100 bytes a second, and its video if it is done."""
    given = {"source_bytes": 360_000, "time": "2026-01-02T03:04:05.678+00:00", "attempts": 1}
    if state == "done":
        stem = key.rpartition(".")[0]
        given |= {"duration_s": 3600.0, "output": f"{stem}.mp4", "title": stem.rpartition("/")[2]}
    return ShowRecord(show_id_of(key), state, key=key, **(given | fields))


def a_run(folder: str, name: str, *, heard_s: float = 1e6, **fields: Any) -> None:
    """A run's heartbeat, as it was so many seconds ago, in a ledger's folder."""
    beat = {"state": "running", "host": "node-1", "started": ago(heard_s + 3600)}
    beat |= {"time": ago(heard_s), **fields}
    path = Path(folder, "runs", name, "heartbeat.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(beat))
