"""A render's figures for dashboards, by way of Ray's own metrics: `ray_asha_…` where they arrive.

A driver counts what its scheduler tells; the scheduler knows nothing of it.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from asha_ray.farm.rendering.scheduler import RETRIES, Watch

JOB_VARIABLE = "ASHA_JOB"
"""Of the environment: the job that this driver works for."""
TAGS = ("render", "job")
CHUNK_S_BOUNDS = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]
RATE_S = 2.0
"""Over how long a speed is measured."""


class Metrics:
    """Counters and gauges of one driver's renders.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tags = {"render": "", "job": os.environ.get(JOB_VARIABLE, "")}
        self._frames = Counter("asha_frames", "Frames of finished chunks.", TAGS)
        self._speed = Gauge("asha_frames_per_second", "Frames that are made in a second.", TAGS)
        self._seconds = Histogram(
            "asha_chunk_seconds", "Seconds that a chunk took.", CHUNK_S_BOUNDS, TAGS
        )
        self._waiting = Gauge("asha_chunks_waiting", "Chunks that no worker has begun.", TAGS)
        self._workers = Gauge("asha_workers", "Workers that are ready or at work.", TAGS)
        self._retries = Counter("asha_retries", "Chunks that failed, and workers lost.", TAGS)
        self._reused = Counter("asha_chunks_reused", "Chunks that were there already.", TAGS)
        self._bytes = Counter("asha_segment_bytes", "Bytes of finished segments.", TAGS)
        self._num_reused = 0
        self._num_frames = 0
        self._since = clock()

    def watching(self, watch: Watch) -> Watch:
        """The same watch, which counts what it hears; for one render's chunks, perhaps again."""
        if watch.render != self._tags["render"]:
            self._tags = {**self._tags, "render": watch.render}
            self._num_reused = 0
        if watch.num_reused > self._num_reused:
            self._reused.inc(watch.num_reused - self._num_reused, self._tags)
            self._num_reused = watch.num_reused
        self._num_frames, self._since = 0, self._clock()
        self._speed.set(0, self._tags)

        def on_frames(num_frames: int) -> None:
            self._count_frames(num_frames)
            watch.on_frames(num_frames)

        def tell(event: str, **fields: Any) -> None:
            self._hear(event, fields)
            watch.tell(event, **fields)

        def on_crew(num_workers: int, num_waiting: int) -> None:
            self._workers.set(num_workers, self._tags)
            self._waiting.set(num_waiting, self._tags)
            self._count_frames(0)
            watch.on_crew(num_workers, num_waiting)

        return replace(watch, on_frames=on_frames, tell=tell, on_crew=on_crew)

    def rest(self) -> None:
        """Nothing is rendered any more."""
        for gauge in (self._speed, self._workers, self._waiting):
            gauge.set(0, self._tags)

    def _count_frames(self, num_frames: int) -> None:
        self._num_frames += max(0, num_frames)  # those that are lost were made, too
        elapsed_s = self._clock() - self._since
        if elapsed_s >= RATE_S:
            self._speed.set(self._num_frames / elapsed_s, self._tags)
            self._num_frames, self._since = 0, self._clock()

    def _hear(self, event: str, fields: dict[str, Any]) -> None:
        if event in RETRIES:
            self._retries.inc(1, self._tags)
        elif event == "chunk-done":
            start, stop = fields["frames"]
            self._frames.inc(stop - start, self._tags)
            if fields["bytes"]:
                self._bytes.inc(fields["bytes"], self._tags)
            self._seconds.observe(fields["seconds"], self._tags)
