"""An archive in a bucket, of whose nodes and drivers some are killed on the way."""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asha_ray.storage import join, storage_of
from asha_ray.storage.journal import read_events
from asha_ray.storage.ledger import Ledger, ShowRecord
from tests import media
from tests.cluster import Cluster
from tests.farm import Driver, wait_for
from tests.integration.cluster_faults.conftest import BUCKET, NUM_NODES, Start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RATE = 11025
NAMES = [
    *(f"jazz/2023-05-{day:02d} set {day}.wav" for day in range(1, 15)),
    "talk/100% #1 'quoted' & \"double\".wav",
    "talk/Ночь – 夜.wav",
    f"talk/{'a very long folder/' * 45}end.wav",
    "talk/Same.wav",
    "talk/same.wav",
]
BROKEN = ["jazz/broken.mp3", "talk/text.wav"]
EMPTY = "talk/empty.wav"


@dataclass(frozen=True)
class Archive:
    """An archive below a prefix of the bucket."""

    model: str
    folder: str

    @property
    def source(self) -> str:
        return join(self.folder, "shows")

    @property
    def output(self) -> str:
        return join(self.folder, "videos")

    def arguments(self) -> list[str]:
        return [
            *("archive", self.source, "--out", self.output, "--model", self.model),
            *("--fps", "10", "--chunk-seconds", "0.5", "--names", "{path}"),
        ]

    def videos(self) -> dict[str, str]:
        """Each finished video, with what would change if it were made again."""
        found: dict[str, str] = {}
        records = set()
        for entry in storage_of(self.output).list(self.output, after=".~"):
            if entry.uri.endswith(".mp4"):
                found[entry.uri] = f"{entry.version} {entry.modified_s}"
            elif entry.uri.endswith(".mp4.json"):
                records.add(entry.uri.removesuffix(".json"))
        return {uri: version for uri, version in found.items() if uri in records}

    def require_kept(self, before: Mapping[str, str]) -> dict[str, str]:
        """Nothing of what was there has been made again; returns what is there now."""
        after = self.videos()
        assert {uri: after[uri] for uri in before} == before, "made again"
        return after

    def records(self) -> Mapping[str, ShowRecord]:
        return {record.key: record for record in Ledger(self.output).read_all().values()}

    def events(self, name: str) -> list[Mapping[str, Any]]:
        ledger = Ledger(self.output)
        return [
            event
            for run in ledger.runs()
            for event in read_events(ledger.run_folder(str(run["run"])))
            if event["event"] == name
        ]


@pytest.fixture
def archive(model_in_bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> Archive:
    made = Archive(model_in_bucket, f"s3://{BUCKET}/{request.node.name}")
    storage = storage_of(made.source)
    for number, name in enumerate(NAMES):
        samples = media.music(1.0, RATE) * 0.6
        pitch = 150 + 20 * number
        samples += 0.3 * np.sin(2 * np.pi * pitch * np.arange(len(samples)) / RATE)
        path = media.write_sound(tmp_path / "show.wav", samples.astype(np.float32), RATE)
        storage.upload(path, join(made.source, name))
    for name in BROKEN:
        storage.write(join(made.source, name), b"this is no sound\n" * 100)
    storage.write(join(made.source, EMPTY), b"")
    return made


def require_whole(archive: Archive, driver: Driver) -> None:
    """Every good show has its video, every other one its reason."""
    answer = driver.finish(600)
    assert answer.code == 1, answer.err
    assert answer.result["parked"] == len(BROKEN), answer.err
    assert answer.result["refused"] == 1
    videos = archive.videos()
    assert len(videos) == len(NAMES)
    folded = Counter(uri.casefold() for uri in videos)
    assert set(folded.values()) == {1}
    records = archive.records()
    assert {key for key, record in records.items() if record.state == "done"} == set(NAMES)
    for key in BROKEN:
        assert records[key].state == "parked"
        assert "give a sound file" in records[key].reason
    for key in NAMES:
        assert join(archive.output, records[key].output) in videos
        assert records[key].quality["decoded"] == records[key].frames == 10


def test_stopped_and_killed_on_the_way(archive: Archive, farm: Cluster, start: Start) -> None:
    """The first run is told to stop, of the second a node is killed and then its driver."""
    first = start(archive, farm)
    wait_for(lambda: archive.videos() or not first.is_running(), 300, "a video")
    os.kill(first.pid, signal.SIGTERM)
    answer = first.finish(120)
    assert answer.code == 130, answer.err
    kept = archive.videos()

    second = start(archive, farm)
    wait_for(lambda: len(archive.videos()) >= 5 or not second.is_running(), 300, "five videos")
    working = wait_for(farm.working, 60, "a worker with a chunk")
    farm.kill(farm.node_of(working[0].pid))
    wait_for(lambda: len(archive.videos()) >= 9 or not second.is_running(), 300, "nine videos")
    assert second.is_running(), second.finish().err
    second.kill()
    kept = archive.require_kept(kept)

    require_whole(archive, start(archive, farm))

    archive.require_kept(kept)
    heard = Counter(event["chunk_id"] for event in archive.events("chunk-done"))
    assert max(heard.values()) == 1, "rendered twice"

    last = start(archive, farm).finish()
    assert last.code == 1
    assert last.result["todo"] == 0
    assert last.result["wall_s"] < 20


def test_two_runs_at_once_do_no_harm(archive: Archive, farm: Cluster, start: Start) -> None:
    both = [start(archive, farm) for _ in range(2)]
    for driver in both:
        require_whole(archive, driver)
    done = [event for event in archive.events("show-done") if not event["elsewhere"]]
    shows = Counter(event["show"] for event in done)
    assert set(shows) == set(NAMES)
    # Each may have one in hand for each node when they meet, from either end.
    assert sum(count > 1 for count in shows.values()) <= 2 * NUM_NODES, "both did the same"
