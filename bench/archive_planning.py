"""How long it takes to plan an archive of 100,000 shows in a bucket, and how much memory.

    PYTHONPATH=. python bench/archive_planning.py [--shows 100000]

The server is OpenStack Swift. What is only ever listed is written into its database of names,
since storing it object by object would take an hour; lists are Swift's own answers. The model and
the ledger's index are objects. Each run is a process of its own. Prints a JSON document for each:
seconds of each stage and in all, of CPU here and in the server, and the most memory that the
process ever had.
"""

import argparse
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import boto3
import psutil
from botocore.config import Config

from asha_ray.farm.archive.rules import SettingsDigests, model_versions
from asha_ray.farm.archive.scan import Source, show_id_of
from asha_ray.farm.archive.todo import find_todo, source_of
from asha_ray.progress import NullProgress
from asha_ray.spec import ArchiveSpec, build
from asha_ray.storage import join, storage_of
from asha_ray.storage.ledger import Ledger, Records, ShowRecord, encode_record
from asha_ray.storage.ledger_index import Stored
from tests.swift import CREDENTIALS, swift

BUCKET = "station"
SPEC = {
    "source": f"s3://{BUCKET}/shows",
    "output": f"s3://{BUCKET}/videos",
    "model": f"s3://{BUCKET}/model",
    "rules": [
        {"match": {"path": "2019/*"}, "video": {"crf": 20}},
        {"match": {"show": "Show 3"}, "motion": {"min_factor": 2}},
    ],
}
SIDECARS = 20
"""One show of so many has one."""

Row = tuple[str, int, str]
"""Key, bytes and entity tag."""


class Stages(NullProgress):
    """When each stage began."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:  # noqa: ARG002
        self.began.append((name, time.monotonic()))


def shows(num_shows: int) -> Iterator[Source]:
    for number in range(num_shows):
        key = (
            f"{2010 + number % 14}/Show {number % 97}/{2010 + number % 14} Episode {number:06}.mp3"
        )
        sidecar = tag(f"sidecar {key}") if number % SIDECARS == 0 else ""
        yield Source(key, "", 100_000_000 + number, 0.0, tag(key), sidecar)


def tag(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def record_of(source: Source, settings: str) -> ShowRecord:
    name = source.key.rpartition("/")[2].removesuffix(".mp3")
    output = f"{source.key.removesuffix('.mp3')}.mp4"
    return ShowRecord(
        show_id=show_id_of(source.key), state="done", key=source.key, source=source_of(source),
        settings=settings, time="2026-11-25T21:55:01.123+00:00", attempts=1,
        show=source.key.split("/")[1], title=name, artist="A DJ", album="Album",
        date="2019-05-01",
        source_bytes=source.num_bytes, duration_s=7200.123, tempo=124.2, loudness_lufs=-14.2,
        sections=tuple(round(30.1 * number, 2) for number in range(24)),
        chapters=tuple((600.0 * number, f"Track {number}") for number in range(10)),
        output=output, files=(output, f"{output}.json"), work=f"s3://{BUCKET}/videos/.asha",
        render_id=tag(name), frames=432_007, fps="60", size=(1920, 1080), chunks=720,
        digests={part: hashlib.sha256(f"{part}{name}".encode()).hexdigest()
                 for part in ("audio", "model", "features", "keyframes", "video")},
        quality={"flashes": 0, "black_s": 0.0, "frozen_s": 0.0}, render_s=3600.0, wall_s=420.0,
    )  # fmt: skip


def source_rows(num_shows: int) -> Iterator[Row]:
    for source in shows(num_shows):
        yield f"shows/{source.key}", source.num_bytes, source.version
        if source.sidecar:
            yield f"shows/{source.key}.asha.yaml", 100, source.sidecar


def fill(folder: Path, rows: Iterator[Row]) -> None:
    """Put names into the bucket's database as Swift itself would."""
    (database,) = folder.glob("devices/d1/containers/*/*/*/*.db")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.create_function("chexor", 3, lambda *_: "0" * 32)
        connection.executemany(
            "INSERT INTO object (name, size, etag, created_at, content_type, deleted, "
            "storage_policy_index) VALUES (?, ?, ?, '1700000000.00000', 'a/b', 0, 0)",
            rows,
        )


def keep_ledger(num_shows: int) -> Iterator[Row]:
    """Write the index of a ledger that is full; the names of its records and of all videos."""
    spec = build(ArchiveSpec, SPEC)
    digests, stored = SettingsDigests(spec, model_versions(spec)), {}
    rows = []
    for source in shows(num_shows):
        record = record_of(source, digests.of(source))
        content = encode_record(record)
        stored[record.show_id] = Stored(hashlib.md5(content).hexdigest(), content)
        version = stored[record.show_id].version
        rows.append((f"videos/.ledger/shows/{record.show_id}.json", len(content), version))
        rows.append((f"videos/{record.output}", 10**9, tag(record.output)))
        rows.append((f"videos/{record.output}.json", 1000, tag(record.show_id)))
        rows.append((f"videos/.asha/segments/{record.render_id}.mp4", 10**6, tag(record.output)))
    Ledger(spec.output).write_index(Records(stored, {}))
    yield from rows


def plan(name: str) -> None:
    spec, progress = build(ArchiveSpec, SPEC), Stages()
    began = time.monotonic()
    found = find_todo(spec, Ledger(spec.output), progress)
    ended = time.monotonic()
    ends = [*(start for _, start in progress.began[1:]), ended]
    figures = {
        "run": name, "shows": found.num_shows, "todo": len(found.todo), "done": found.done,
        "stages_s": {stage: round(end - start, 1)
                     for (stage, start), end in zip(progress.began, ends, strict=True)},
        "seconds": round(ended - began, 1),
        "cpu_s": round(time.process_time(), 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }  # fmt: skip
    print(json.dumps(figures), flush=True)


def main(num_shows: int) -> None:
    with tempfile.TemporaryDirectory() as name, swift(Path(name) / "swift") as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": CREDENTIALS[0],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS[1],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        client.create_bucket(Bucket=BUCKET)
        storage_of(SPEC["model"]).write(join(str(SPEC["model"]), "config.json"), b"{}")
        folder = Path(name) / "swift"
        fill(folder, source_rows(num_shows))
        run_itself("first")
        fill(folder, keep_ledger(num_shows))
        run_itself("second")


def run_itself(name: str) -> None:
    before = server_cpu_s()
    done = subprocess.run(
        [sys.executable, __file__, "--run", name], check=True, capture_output=True, text=True
    )
    figures = json.loads(done.stdout)
    print(json.dumps({**figures, "server_cpu_s": round(server_cpu_s() - before, 1)}), flush=True)


def server_cpu_s() -> float:
    """On a busy machine only these seconds say what is needed; Swift is the only child now."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--shows", type=int, default=100_000)
    parser.add_argument("--run", help="plan what the environment's server holds")
    given = parser.parse_args()
    if given.run:
        plan(given.run)
    else:
        main(given.shows)
