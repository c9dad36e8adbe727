"""A render's chunks, from those that are there already to the last one that is missing."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from asha_ray.errors import AshaError, FarmError, SegmentError
from asha_ray.farm.rendering.executor import Executor
from asha_ray.farm.rendering.plan import Plan
from asha_ray.farm.rendering.scheduler import RETRIES, Watch
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob
from asha_ray.faults import reach
from asha_ray.progress import Progress
from asha_ray.storage.journal import Journal
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, LatentPath, Segment
from asha_ray.video.batches import chunk_latents


class ChunkWork:
    """What is done of a render, and how the rest gets done.

    Args:
        executor: where chunks are rendered.
        job: what its workers must know.
        plan: the render.
        progress: hears of frames and of what was found.
        journal: hears of everything.

    Attributes:
        num_reused: chunks of the video whose segments an earlier render had left.
    """

    def __init__(
        self,
        executor: Executor,
        job: WorkerJob,
        plan: Plan,
        progress: Progress,
        journal: Journal,
    ) -> None:
        self._executor, self._job, self._plan = executor, job, plan
        self._progress, self._journal = progress, journal
        self._work = WorkRoot(job.work)
        self._segments: dict[str, Segment] = {}
        self._reused: set[str] = set()
        self._num_frames_done = 0
        self._num_retries = self._num_workers = 0
        self.num_reused = 0

    @property
    def num_missing_frames(self) -> int:
        """Frames that are yet to be rendered."""
        chunks = {chunk.chunk_id: chunk for chunk in self._plan.manifest.chunks}  # twins once
        return sum(chunk.num_frames for key, chunk in chunks.items() if key not in self._segments)

    def find(self) -> None:
        """Look for what earlier renders have left."""
        chunks = self._plan.manifest.chunks
        found = self._work.find_segments(chunks)
        self._segments = found.segments
        self._count_reused(set(found.segments))
        if self.num_reused:
            self._progress.note(f"{self.num_reused} of {len(chunks)} chunks are there already")
        if found.damaged:
            self._journal.tell("segments-damaged", chunk_ids=found.damaged)
            self._progress.note(
                f"{len(found.damaged)} segments are not what their records say; they are rendered "
                "again"
            )

    def forget(self, error: SegmentError) -> None:
        """Let segments be rendered again that proved to be something else when they were read."""
        self._journal.tell("segments-damaged", chunk_ids=error.chunk_ids, error=str(error))
        many = len(error.chunk_ids)
        again = "it is" if many == 1 else f"it and {many - 1} more are"
        self._progress.note(f"{error}; {again} rendered again")
        for chunk_id in error.chunk_ids:
            self._work.forget_segment(chunk_id)
            self._segments.pop(chunk_id, None)
        self._count_reused(self._reused.difference(error.chunk_ids))

    def _count_reused(self, reused: set[str]) -> None:
        self._reused = reused
        self.num_reused = sum(chunk.chunk_id in reused for chunk in self._plan.manifest.chunks)

    def finish(self) -> tuple[Segment, ...]:
        """Render what is missing; all segments, in order.

        Raises:
            AshaError: of the chunk that cannot be rendered; what is finished is kept, and said.
        """
        manifest = self._plan.manifest
        self._report(-self._num_frames_done)
        self._report(manifest.num_frames - self.num_missing_frames)
        self._progress.stage("rendering", self.num_missing_frames, "frames")
        watch = Watch(
            on_frames=self._hear_frames,
            tell=self._hear,
            on_lonely=self._tell_lonely,
            on_crew=self._hear_crew,
            render=manifest.render_id,
            num_reused=self.num_reused,
        )
        try:
            for segment in self._executor.render(self._job, self._tasks(), watch):
                self._segments[segment.chunk_id] = segment
                self._report(0)
                reach("committed")
        except AshaError as error:
            raise self._with_state(error) from error
        except KeyboardInterrupt:
            self._progress.note(self._state())
            raise
        self._hear_crew(0, 0)
        return tuple(self._segments[chunk.chunk_id] for chunk in manifest.chunks)

    def _tasks(self) -> "_Tasks":
        given = set(self._segments)
        missing = []
        for chunk in self._plan.manifest.chunks:
            if chunk.chunk_id not in given:
                given.add(chunk.chunk_id)  # two chunks may show the same
                missing.append(chunk)
        return _Tasks(missing, self._plan.path, self._job.numerics.batch_size)

    def _hear(self, event: str, **fields: Any) -> None:
        self._num_retries += event in RETRIES
        self._journal.tell(event, **fields)

    def _hear_crew(self, num_workers: int, _num_waiting: int) -> None:
        self._num_workers = num_workers
        self._report(0)

    def _hear_frames(self, num_frames: int) -> None:
        self._progress.advance(num_frames)
        self._report(num_frames)

    def _report(self, num_frames: int) -> None:
        self._num_frames_done += num_frames
        done = {
            "frames_done": self._num_frames_done,
            "chunks_done": len(self._segments),
            "reused_chunks": self.num_reused,
            "retries": self._num_retries,
            "workers": self._num_workers,
        }
        self._journal.status(stage="rendering", **done)
        self._progress.tell(**done)

    def _tell_lonely(self) -> None:
        self._progress.note("no worker is ready: waiting for the cluster to have room for one")

    def _state(self) -> str:
        num_done, num_chunks = len(self._segments), len(self._plan.manifest.chunks)
        return f"{num_done} of {num_chunks} chunks are finished and kept in {self._work.uri}"

    def _with_state(self, error: AshaError) -> AshaError:
        if not self._segments:
            return error
        return FarmError(f"{error}\n{self._state()}; the same command goes on")


class _Tasks(Iterator[ChunkTask]):
    """Chunks as tasks: latents are made as they are drawn, and it is known how many are left."""

    def __init__(self, chunks: Sequence[Chunk], path: LatentPath, batch_size: int) -> None:
        self._chunks, self._path, self._batch_size = deque(chunks), path, batch_size

    def __next__(self) -> ChunkTask:
        """The next."""
        if not self._chunks:
            raise StopIteration
        chunk = self._chunks.popleft()
        return ChunkTask(chunk, chunk_latents(self._path, chunk, self._batch_size))

    def __length_hint__(self) -> int:
        return len(self._chunks)
