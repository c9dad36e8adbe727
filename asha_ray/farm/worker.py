"""What one worker does: a chunk's latents in, a finished segment in storage out."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from asha_ray.farm.models import load_generator
from asha_ray.storage.work import WorkRoot
from asha_ray.values import (
    ByteArray,
    Chunk,
    EncoderSettings,
    FloatArray,
    Numerics,
    Segment,
    Size,
)
from asha_ray.video.encode import encode_segment
from asha_ray.video.frames import render_frames


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker must know to render any chunk of a render."""

    model: str
    numerics: Numerics
    encoder: EncoderSettings
    size: Size
    fit: str
    fps: Fraction
    work: str


@dataclass(frozen=True)
class ChunkTask:
    """One chunk to render, with the latents `[whole batches, L]` it needs."""

    chunk: Chunk
    latents: FloatArray


class ChunkRenderer:
    """Decodes and encodes chunks with one loaded model."""

    def __init__(self, job: WorkerJob) -> None:
        if job.numerics.threads:
            torch.set_num_threads(job.numerics.threads)
        self._job = job
        self._work = WorkRoot(job.work)
        self._generator = load_generator(job.model, job.numerics)

    def render(self, task: ChunkTask, on_frames: Callable[[int], None] = lambda _: None) -> Segment:
        """Render a chunk and commit its segment; `on_frames` hears of every few frames.

        Raises:
            EncodeError: if ffmpeg fails.
            StorageError: if the segment cannot be stored.
        """
        started = time.monotonic()
        job, chunk = self._job, task.chunk

        def frames() -> Iterator[ByteArray]:
            batches = render_frames(
                self._generator,
                task.latents,
                chunk,
                batch_size=job.numerics.batch_size,
                size=job.size,
                fit=job.fit,
            )
            for batch in batches:
                yield batch
                on_frames(len(batch))

        with tempfile.TemporaryDirectory(prefix="asha-chunk-") as folder:
            path = Path(folder) / "segment.mp4"
            num_frames = encode_segment(frames(), path, job.size, job.fps, job.encoder)
            return self._work.commit_segment(
                path,
                chunk.chunk_id,
                num_frames=num_frames,
                seconds=time.monotonic() - started,
                worker=f"{platform.node()}:{os.getpid()}",
            )
