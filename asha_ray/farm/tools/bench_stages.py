"""The stages that `bench` measures, each for a given time, with a render's own code."""

import os
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
import psutil
import torch
from torch import nn

from asha_ray.motion.seed import SeedPath, seed_path
from asha_ray.scratch import scratch_folder
from asha_ray.vae.architecture import Architecture, architecture_of, build
from asha_ray.vae.generator import VaeGenerator
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import ByteArray, Chunk, EncoderSettings, FloatArray, Numerics, Size
from asha_ray.video.batches import chunk_latents
from asha_ray.video.convert import prepare, video_frames
from asha_ray.video.decoders import Decoders, on_host
from asha_ray.video.encode import encode_segment
from asha_ray.video.frames import render_frames

STAGES = ("decode", "convert", "encode", "pipeline")
FPS = Fraction(60)
PATH_FRAMES = 3600
SAMPLE_KEYFRAMES = 64
SAMPLE_GAIN = 1.9
"""What an initialised decoder's weights are multiplied by: fresh ones give an even grey, which any
encoder takes for nothing."""
MAX_SAMPLE_BYTES = 128 << 20
MEMORY_POLL_S = 0.1


@dataclass(frozen=True)
class Setting:
    """What a measurement is of."""

    numerics: Numerics
    encoder: EncoderSettings
    num_decoders: int
    size: Size


class Reading(NamedTuple):
    """One stage, once: frames per second, and milliseconds of CPU time for each frame.

    The cost counts ffmpeg's too, and hardly feels who else uses the machine. `num_bytes` is what a
    segment of all of them takes, where the stage makes one.
    """

    rate: float
    cost_ms: float
    num_frames: int = 0
    num_bytes: int = 0


def _cpu_seconds() -> float:
    """CPU time of this process and of those it has started and awaited."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usages = [resource.getrusage(who) for who in both]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def sample_model(architecture: Architecture | None = None) -> ModelFiles:
    """An initialised model, by default the article's of 448×448, whose pictures move visibly."""
    architecture = architecture or architecture_of("seed", (448, 448), 200)
    vae = build(architecture)
    with torch.no_grad():
        for layer in vae.decoder.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.mul_(SAMPLE_GAIN)
    shape = (SAMPLE_KEYFRAMES, architecture.latent_dim)
    keyframes = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return ModelFiles(architecture, dict(vae.state_dict()), keyframes, {}, "")


def sample_path(keyframes: FloatArray, latent_dim: int) -> SeedPath:
    """A minute's motion at 60 fps, with two beats a second."""
    if not len(keyframes):
        keyframes = np.random.default_rng(0).standard_normal((8, latent_dim), dtype=np.float32)
    envelope = 0.75 ** (np.arange(PATH_FRAMES) % 30)
    return seed_path(
        keyframes, envelope.astype(np.float32), FPS, seed=0, keyframe_gap=1.0, min_factor=1.0
    )


class Stages:
    """One setting's stages, ready to be measured again and again.

    Args:
        files: the model.
        setting: what is measured.
    """

    def __init__(self, files: ModelFiles, setting: Setting) -> None:
        self._setting = setting
        numerics = setting.numerics
        self._generator = VaeGenerator(files, numerics)
        prepare()
        self._decoders = Decoders(setting.num_decoders, numerics.threads, numerics.device)
        self._path = sample_path(files.keyframes, files.architecture.latent_dim)
        self._num_bytes = 0
        self._frames = self._sample_frames()

    def measure(self, stage: str, seconds: float) -> Reading:
        """A stage's speed and cost, measured for about so many seconds."""
        run = {
            "decode": self._decode,
            "convert": self._convert,
            "encode": self._encode,
            "pipeline": self._pipeline,
        }[stage]
        self._num_bytes = 0
        started, used = time.perf_counter(), _cpu_seconds()
        num_frames = run(started + seconds)
        wall_s = time.perf_counter() - started
        cost_ms = 1000 * (_cpu_seconds() - used) / num_frames
        return Reading(num_frames / wall_s, cost_ms, num_frames, self._num_bytes)

    def close(self) -> None:
        """End its threads."""
        self._decoders.close()

    def _latents(self, deadline: float) -> Iterator[FloatArray]:
        """Batch after batch until the deadline; at least two for each decoder."""
        batch_size = self._setting.numerics.batch_size
        num_batches = PATH_FRAMES // batch_size
        index = 0
        while index < 2 * self._setting.num_decoders or time.perf_counter() < deadline:
            start = index % num_batches * batch_size
            yield self._path.latents(start, start + batch_size)
            index += 1

    def _decode(self, deadline: float) -> int:
        def decode(latents: FloatArray) -> int:
            pictures = self._generator.decode(latents)
            if pictures.is_cuda:
                torch.cuda.current_stream().synchronize()
            return len(pictures)

        return sum(self._decoders.map(decode, self._latents(deadline)))

    def _convert(self, deadline: float) -> int:
        batch_size = self._setting.numerics.batch_size
        pictures = self._generator.decode(self._path.latents(0, batch_size))
        setting = self._setting

        def convert(_: FloatArray) -> int:
            return len(on_host(video_frames(pictures, setting.size, "crop")))

        return sum(self._decoders.map(convert, self._latents(deadline)))

    def _encode(self, deadline: float) -> int:
        return self._to_segment(self._prepared(deadline))

    def _prepared(self, deadline: float) -> Iterator[ByteArray]:
        # To and fro, so that the picture never jumps.
        batches = [*self._frames, *reversed(self._frames)]
        index = 0
        while index < len(batches) or time.perf_counter() < deadline:
            yield batches[index % len(batches)]
            index += 1

    def _pipeline(self, deadline: float) -> int:
        return self._to_segment(self._rendered(deadline))

    def _rendered(self, deadline: float) -> Iterator[ByteArray]:
        at_least = 2 * self._setting.num_decoders
        for index, batch in enumerate(self._render(PATH_FRAMES), 1):
            yield batch
            if index >= at_least and time.perf_counter() >= deadline:
                return

    def _render(self, num_frames: int) -> Iterator[ByteArray]:
        setting, batch_size = self._setting, self._setting.numerics.batch_size
        chunk = Chunk(0, 0, num_frames)
        return render_frames(
            self._generator,
            chunk_latents(self._path, chunk, batch_size),
            chunk,
            batch_size=batch_size,
            size=setting.size,
            fit="crop",
            decoders=self._decoders,
        )

    def _sample_frames(self) -> list[ByteArray]:
        width, height = self._setting.size
        wanted = min(120, max(self._setting.numerics.batch_size, 1))
        num_frames = max(wanted, min(120, MAX_SAMPLE_BYTES // (width * height * 3 // 2)))
        return [np.array(batch) for batch in self._render(num_frames)]

    def _to_segment(self, batches: Iterator[ByteArray]) -> int:
        setting = self._setting
        with scratch_folder("bench") as folder:
            path = folder / "segment.mp4"
            num_frames = encode_segment(batches, path, setting.size, FPS, setting.encoder)
            self._num_bytes = path.stat().st_size
            return num_frames


class PeakMemory:
    """Watches the resident memory of this process and all below it. Used as a context."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process(os.getpid())
        while True:
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue  # it has just ended
            self.peak_bytes = max(self.peak_bytes, total)
            if self._ended.wait(MEMORY_POLL_S):
                return
