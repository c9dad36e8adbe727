"""What one worker does: a chunk's latents in, a finished segment in storage out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from asha_ray.errors import FarmError
from asha_ray.farm.models import load_decoder
from asha_ray.farm.rendering.numerics import require_same_kind
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob, worker_name
from asha_ray.faults import reach
from asha_ray.scratch import scratch_folder
from asha_ray.storage.keys import file_digest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import ByteArray, Chunk, Generator, Numerics, Segment, Size
from asha_ray.video.convert import prepare
from asha_ray.video.decoders import Decoders
from asha_ray.video.encode import encode_segment
from asha_ray.video.frames import render_frames
from asha_ray.video.verify import verify_segment


class ChunkRenderer:
    """Decodes and encodes chunks with one loaded model, and with another where a chunk needs it.

    Raises:
        FarmError: if this machine is of another kind than the render was planned for.
        ModelError: if the model cannot be loaded.
    """

    def __init__(self, job: WorkerJob) -> None:
        self._job = job
        self._held: _Held | None = _load(job)
        prepare()
        self._proven = False
        self._unwanted: set[int | None] = set()

    def _take_up(self, job: WorkerJob) -> "_Held":
        """Be ready for chunks of a render; one model is held at a time."""
        if self._held is None or not self._held.serves(job):
            self.close()
            self._held = _load(job)
        return self._held

    def close(self) -> None:
        """Let go of the model, and end its threads."""
        if self._held is not None:
            self._held.decoders.close()
        self._held = None

    def give_up(self, index: int | None = None) -> None:
        """Let go of a chunk, or of any, at its next frames; `render` raises then."""
        self._unwanted.add(index)

    def render(self, task: ChunkTask, on_frames: Callable[[int], None] = lambda _: None) -> Segment:
        """Render a chunk and commit its segment; `on_frames` hears of every few frames.

        Raises:
            EncodeError: if ffmpeg fails, or what it made is not what it was given.
            StorageError: if the segment cannot be stored.
            FarmError: if it was given up meanwhile.
        """
        started = time.monotonic()
        job, chunk = task.job or self._job, task.chunk
        work = WorkRoot(job.work)
        if task.may_be_there and not job.fresh:
            found = work.find_segments([chunk]).segments
            if chunk.chunk_id in found:
                return found[chunk.chunk_id]
        held = self._take_up(job)

        def frames() -> Iterator[ByteArray]:
            batches = render_frames(
                held.generator,
                task.latents,
                chunk,
                batch_size=job.numerics.batch_size,
                size=job.size,
                fit=job.fit,
                decoders=held.decoders,
            )
            for batch in batches:
                if not self._unwanted.isdisjoint((None, chunk.index)):
                    raise FarmError("rendering: it was stopped")
                yield batch
                on_frames(len(batch))

        with scratch_folder("chunk") as folder:
            path = folder / "segment.mp4"
            encode_segment(frames(), path, job.size, job.fps, job.encoder)
            reach("encoded")
            return self._commit(path, chunk, started, work, job.size)

    def _commit(
        self, path: Path, chunk: Chunk, started: float, work: WorkRoot, size: Size
    ) -> Segment:
        """Check a segment, store it, and only then say that it is there."""
        # All of a worker's first one: that its encoder works shows there.
        verify_segment(path, chunk.num_frames, size, every_frame=not self._proven)
        self._proven = True
        segment = Segment(
            chunk_id=chunk.chunk_id,
            sha256=file_digest(path),
            num_bytes=path.stat().st_size,
            num_frames=chunk.num_frames,
            seconds=time.monotonic() - started,
            worker=worker_name(),
        )
        reach("verified")
        work.upload_segment(path, segment)
        reach("uploaded")
        work.write_record(segment)
        reach("recorded")
        return segment


@dataclass(frozen=True)
class _Held:
    """A model that is loaded, and what decodes with it."""

    model: str
    numerics: Numerics
    generator: Generator
    decoders: Decoders

    def serves(self, job: WorkerJob) -> bool:
        """Whether it is what a render needs."""
        return (self.model, self.numerics) == (job.model, job.numerics)


def _load(job: WorkerJob) -> _Held:
    require_same_kind(job.numerics, allow_mixed=job.allow_mixed)
    generator = load_decoder(job.model, job.numerics)
    if job.numerics.device == "cuda":
        torch.cuda.synchronize()  # decoders have streams of their own
    decoders = Decoders(job.num_decoders, job.numerics.threads, job.numerics.device)
    return _Held(job.model, job.numerics, generator, decoders)
