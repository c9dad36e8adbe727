"""What a render counts for dashboards: by the names that they know."""

from collections import defaultdict
from typing import Any

import pytest

from asha_ray.farm.on_ray import metrics as ray_metrics
from asha_ray.farm.on_ray.metrics import JOB_VARIABLE, RATE_S, Metrics
from asha_ray.farm.rendering.scheduler import Watch

NAMES = {
    "asha_frames", "asha_frames_per_second", "asha_chunk_seconds", "asha_chunks_waiting",
    "asha_workers", "asha_retries", "asha_chunks_reused", "asha_segment_bytes",
}  # fmt: skip
DONE = {"chunk": 0, "frames": [60, 120], "chunk_id": "a", "worker": "w", "seconds": 2.5}


class Exported:
    """All that was counted, as Ray would have it: a counter takes no nothing."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.values: dict[str, float] = defaultdict(float)
        self.tags: dict[str, dict[str, str]] = {}

    def metric(self, name: str, *_: object) -> Any:
        self.names.add(name)

        class Metric:
            @staticmethod
            def inc(value: float, tags: dict[str, str]) -> None:
                assert value > 0
                self.values[name] += value
                self.tags[name] = tags

            @staticmethod
            def set(value: float, tags: dict[str, str]) -> None:
                self.values[name] = value
                self.tags[name] = tags

            observe = inc

        return Metric


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    exported = Exported()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray_metrics, kind, exported.metric)
    return exported


def test_the_names_are_those_of_the_dashboards(exported: Exported) -> None:
    Metrics()
    assert exported.names == NAMES


def test_what_is_counted_is_heard_all_the_same(exported: Exported) -> None:
    heard: list[Any] = []
    watch = Watch(
        on_frames=heard.append,
        tell=lambda event, **fields: heard.append((event, fields)),
        on_crew=lambda *told: heard.append(told),
        render="r",
    )
    counting = Metrics().watching(watch)
    counting.on_frames(-4)
    counting.on_crew(2, 7)
    counting.tell("chunk-done", **DONE, bytes=0)
    assert heard == [-4, (2, 7), ("chunk-done", {**DONE, "bytes": 0})]
    assert "asha_segment_bytes" not in exported.values
    assert (exported.values["asha_workers"], exported.values["asha_chunks_waiting"]) == (2, 7)


def test_chunks_and_retries(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "evening")
    counting = Metrics().watching(Watch(render="r"))
    for _ in range(2):
        counting.tell("chunk-done", **DONE, bytes=1000)
    for event in ("chunk-failed", "worker-lost", "worker-ready", "chunk-started"):
        counting.tell(event)
    assert exported.values["asha_frames"] == 120
    assert exported.values["asha_segment_bytes"] == 2000
    assert exported.values["asha_chunk_seconds"] == 5.0
    assert exported.values["asha_retries"] == 2
    assert exported.tags["asha_frames"] == {"render": "r", "job": "evening"}


def test_chunks_that_were_there_count_once_for_a_render(exported: Exported) -> None:
    """Its chunks are worked through again where a segment proves damaged."""
    metrics = Metrics()
    metrics.watching(Watch(render="r", num_reused=5))
    metrics.watching(Watch(render="r", num_reused=4))
    assert exported.values["asha_chunks_reused"] == 5
    metrics.watching(Watch(render="another", num_reused=2))
    assert exported.values["asha_chunks_reused"] == 7


def test_speed_is_that_of_the_last_seconds_and_nothing_at_the_end(exported: Exported) -> None:
    now = [0.0]
    metrics = Metrics(lambda: now[0])
    counting = metrics.watching(Watch(render="r"))
    counting.on_frames(30)
    assert exported.values["asha_frames_per_second"] == 0
    now[0] += RATE_S
    counting.on_frames(30)
    assert exported.values["asha_frames_per_second"] == 60 / RATE_S
    now[0] += 2 * RATE_S
    counting.on_crew(1, 0)
    assert exported.values["asha_frames_per_second"] == 0
    metrics.rest()
    assert exported.values["asha_workers"] == 0
