"""What one worker does: a chunk's latents in, a finished segment in storage out."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch

from asha_ray.farm.models import load_decoder
from asha_ray.farm.numerics import require_same_kind
from asha_ray.scratch import scratch_folder
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
from asha_ray.video.convert import prepare
from asha_ray.video.decoders import Decoders
from asha_ray.video.encode import encode_segment
from asha_ray.video.frames import render_frames

MAX_ATTEMPTS = 3
"""How often a chunk is tried whose encoder fails: a disk may be full for a moment, and a process
may be killed by mistake."""
CUDA_DECODERS = 2
"""One computes while the other's frames are copied."""


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker must know to render any chunk of a render.

    Attributes:
        model: its uri.
        numerics: how frames are computed.
        encoder: how they are encoded.
        size: width and height of the video.
        fit: how pictures come to that size.
        fps: frames per second.
        work: the work root.
        cores: CPU cores that one worker may use; changes no frame.
        allow_mixed: whether a worker of another kind of device may render.
    """

    model: str
    numerics: Numerics
    encoder: EncoderSettings
    size: Size
    fit: str
    fps: Fraction
    work: str
    cores: int = 1
    allow_mixed: bool = False

    @property
    def num_decoders(self) -> int:
        """Decoders beside one another in one worker."""
        return decoders_for(self.numerics, self.cores)


def decoders_for(numerics: Numerics, cores: int) -> int:
    """How many decoders share a worker's device: on a CPU, as many as fill its cores.

    The encoder has as many threads as there are cores and none kept for it: it is fed through a
    short queue, so decoders wait where it falls behind, and it sleeps where they do.
    """
    if numerics.device == "cpu":
        return max(1, cores // max(1, numerics.threads))
    return CUDA_DECODERS if numerics.device == "cuda" else 1  # MPS takes one thread at a time


@dataclass(frozen=True)
class ChunkTask:
    """One chunk to render, with the latents `[whole batches, L]` it needs."""

    chunk: Chunk
    latents: FloatArray


class ChunkRenderer:
    """Decodes and encodes chunks with one loaded model. Used as a context, or closed.

    Raises:
        FarmError: if this machine is of another kind than the render was planned for.
        ModelError: if the model cannot be loaded.
    """

    def __init__(self, job: WorkerJob) -> None:
        require_same_kind(job.numerics, allow_mixed=job.allow_mixed)
        self._job = job
        self._work = WorkRoot(job.work)
        self._generator = load_decoder(job.model, job.numerics)
        if job.numerics.device == "cuda":
            torch.cuda.synchronize()  # decoders have streams of their own
        prepare()
        self._decoders = Decoders(job.num_decoders, job.numerics.threads, job.numerics.device)

    def close(self) -> None:
        """End its threads."""
        self._decoders.close()

    def render(self, task: ChunkTask, on_frames: Callable[[int], None] = lambda _: None) -> Segment:
        """Render a chunk and commit its segment; `on_frames` hears of every few frames.

        Where it fails, `on_frames` hears of its frames as a negative number: they are yet to come.

        Raises:
            EncodeError: if ffmpeg fails.
            StorageError: if the segment cannot be stored.
        """
        started = time.monotonic()
        job, chunk = self._job, task.chunk
        num_made = 0

        def frames() -> Iterator[ByteArray]:
            nonlocal num_made
            batches = render_frames(
                self._generator,
                task.latents,
                chunk,
                batch_size=job.numerics.batch_size,
                size=job.size,
                fit=job.fit,
                decoders=self._decoders,
            )
            for batch in batches:
                yield batch
                num_made += len(batch)
                on_frames(len(batch))

        try:
            return self._encode(frames(), chunk, started)
        except Exception:
            on_frames(-num_made)
            raise

    def _encode(self, frames: Iterator[ByteArray], chunk: Chunk, started: float) -> Segment:
        job = self._job
        with scratch_folder("chunk") as folder:
            path = folder / "segment.mp4"
            num_frames = encode_segment(frames, path, job.size, job.fps, job.encoder)
            return self._work.commit_segment(
                path,
                chunk.chunk_id,
                num_frames=num_frames,
                seconds=time.monotonic() - started,
                worker=f"{platform.node()}:{os.getpid()}",
            )
