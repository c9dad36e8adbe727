"""How many chunks a second the farm can hand out, when rendering them costs nothing.

    python bench/scheduling.py [--chunks 20000] [--records]

Everything is real but the rendering: the manifest is written and read back, what is there is
looked for, Ray's actors take chunks from the scheduler, events are written. Prints one JSON
document: chunks a second, and the driver's memory after a tenth and at the end.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray

from asha_ray.farm.on_ray.crew import RayCrew, RenderActor
from asha_ray.farm.on_ray.runtime import num_devices, ray_cluster
from asha_ray.farm.rendering.chunks import ChunkWork
from asha_ray.farm.rendering.plan import Plan
from asha_ray.farm.rendering.scheduler import Scheduler, Watch
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob, worker_name
from asha_ray.progress import NullProgress
from asha_ray.storage.journal import Journal
from asha_ray.storage.keys import digest_of
from asha_ray.storage.work import WorkRoot
from asha_ray.values import EncoderSettings, FloatArray, Manifest, Numerics, Segment, plan_chunks

FPS = Fraction(60)
CHUNK_S = 10.0


class NoRenderer:
    """Stores a segment of no bytes, or does not even that."""

    def __init__(self, job: WorkerJob, records: bool) -> None:
        self._work, self._records = WorkRoot(job.work), records
        self._empty = Path(tempfile.mkstemp(prefix="bench-")[1])

    def render(self, task: ChunkTask, on_frames: Callable[[int], None]) -> Segment:
        chunk = task.chunk
        on_frames(chunk.num_frames)
        segment = Segment(chunk.chunk_id, "0" * 64, 0, chunk.num_frames, 0.0, worker_name())
        if self._records:
            self._work.upload_segment(self._empty, segment)
            self._work.write_record(segment)
        return segment

    def give_up(self, index: int | None = None) -> None:
        """Nothing takes long here."""


class NoOpActor(RenderActor):
    """An actor with all of a render's protocol and none of its work."""

    records = False

    def _load(self, job: WorkerJob) -> Any:
        return NoRenderer(job, self.records)


class RecordingActor(NoOpActor):
    """One that stores segments and records too."""

    records = True


class StillPath:
    """A path that stays where it is."""

    latent_dim = 4

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    def latents(self, start: int, stop: int) -> FloatArray:
        return np.zeros((stop - start, self.latent_dim), np.float32)


@dataclass
class BareExecutor:
    """Nothing but the scheduler and its crew."""

    scheduler: Scheduler

    def render(self, job: WorkerJob, tasks: Any, watch: Watch) -> Iterator[Segment]:  # noqa: ARG002
        return self.scheduler.run(tasks, watch)


def make_manifest(num_chunks: int, numerics: Numerics, encoder: EncoderSettings) -> Manifest:
    num_frames = round(num_chunks * CHUNK_S * FPS)
    chunks = plan_chunks(0, num_frames, FPS, CHUNK_S)
    named = tuple(
        type(chunk)(chunk.index, chunk.start, chunk.stop, digest_of(["bench", chunk.index])[:40])
        for chunk in chunks
    )
    return Manifest(
        render_id=digest_of(["bench", num_chunks])[:40],
        spec={}, digests={}, fps=FPS, size=(448, 448), numerics=numerics, encoder=encoder,
        start=0, num_frames=num_frames, duration_s=Fraction(num_frames) / FPS, chunks=named,
    )  # fmt: skip


def measure(num_chunks: int, records: bool, work: str) -> dict[str, Any]:
    numerics = Numerics("cpu", "float32", True, 4)
    encoder = EncoderSettings("libx264", 18, "veryfast", 2, "none")
    manifest = make_manifest(num_chunks, numerics, encoder)
    job = WorkerJob("none", numerics, encoder, (448, 448), "crop", FPS, work, allow_mixed=True)
    num_workers = max(1, int(num_devices("CPU")))
    crew = RayCrew(job, lambda _: num_workers, {"CPU": 1}, RecordingActor if records else NoOpActor)
    scheduler = Scheduler(crew)
    scheduler.warm_up()
    me, figures = psutil.Process(), {}
    times: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        began = time.monotonic()
        answer = action()
        times[name] = round(time.monotonic() - began, 2)
        return answer

    class Halfway(NullProgress):
        """Looks at the memory once, early."""

        done = 0

        def advance(self, count: int = 1, detail: str = "") -> None:  # noqa: ARG002
            self.done += count
            if "after_a_tenth_mb" not in figures and self.done * 10 > manifest.num_frames:
                figures["after_a_tenth_mb"] = me.memory_info().rss >> 20

    with Journal(WorkRoot(work).render_uri(manifest.render_id)) as journal:
        root = WorkRoot(work)
        timed("write_manifest_s", lambda: root.write_manifest(manifest))
        assert timed("read_manifest_s", lambda: root.read_manifest(manifest.render_id)) == manifest
        plan = Plan(manifest, StillPath(manifest.num_frames))
        chunks = ChunkWork(BareExecutor(scheduler), job, plan, Halfway(), journal)
        timed("look_for_segments_s", chunks.find)
        figures["before_mb"] = me.memory_info().rss >> 20
        segments = timed("render_s", chunks.finish)
    crew.close()
    assert [segment.chunk_id for segment in segments] == [c.chunk_id for c in manifest.chunks]
    if records:
        found = timed("find_them_again_s", lambda: WorkRoot(work).find_segments(manifest.chunks))
        assert len(found.segments) == num_chunks
    figures["at_the_end_mb"] = me.memory_info().rss >> 20
    return {
        "chunks": num_chunks,
        "records": records,
        "workers": num_workers,
        "chunks_per_s": round(num_chunks / times["render_s"], 1),
        **times,
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--records", action="store_true", help="store empty segments and records")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as work, ray_cluster():
        print(json.dumps(measure(given.chunks, given.records, work), indent=1))
        ray.shutdown()


if __name__ == "__main__":
    main()
