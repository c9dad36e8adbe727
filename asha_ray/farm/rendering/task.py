"""What a worker is told: of the render, and of each chunk. Nothing here brings torch along."""

import os
import platform
from dataclasses import dataclass
from fractions import Fraction

from asha_ray.values import Chunk, EncoderSettings, FloatArray, Numerics, Size

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
        memory_bytes: of the machine's memory that one worker takes, about.
        allow_mixed: whether a worker of another kind of device may render.
        fresh: whether segments that are there count for nothing.
    """

    model: str
    numerics: Numerics
    encoder: EncoderSettings
    size: Size
    fit: str
    fps: Fraction
    work: str
    cores: int = 1
    memory_bytes: int = 0
    allow_mixed: bool = False
    fresh: bool = False

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
    """One chunk to render, with the latents `[whole batches, L]` it needs.

    Attributes:
        chunk: which.
        latents: of its frames.
        may_be_there: another had it in hand before, and may have finished it without being heard.
        job: of the render that it belongs to, where a worker does chunks of several.
    """

    chunk: Chunk
    latents: FloatArray
    may_be_there: bool = False
    job: WorkerJob | None = None


def worker_name() -> str:
    """This process, as records and events name it."""
    return f"{platform.node()}:{os.getpid()}"
