"""Latents to the bytes of frames, in batches on a grid over the whole track, see `batches`."""

from collections.abc import Iterator

import torch

from asha_ray.values import ByteArray, Chunk, FloatArray, Generator, Size
from asha_ray.video.batches import padded_range
from asha_ray.video.convert import video_frames
from asha_ray.video.decoders import Decoders, on_host


def render_frames(
    generator: Generator,
    latents: FloatArray,
    chunk: Chunk,
    *,
    batch_size: int,
    size: Size,
    fit: str,
    decoders: Decoders | None = None,
) -> Iterator[ByteArray]:
    """A chunk's frames as 4:2:0 bytes.

    Args:
        generator: decodes; from several threads at once where `decoders` are given.
        latents: from `chunk_latents`.
        chunk: which frames.
        batch_size: frames decoded together.
        size: width and height of the video, even.
        fit: see `fitted`.
        decoders: who decodes; this thread, batch by batch, where None.

    Yields:
        `[frames, H * W * 3 / 2]` uint8, in order; all together exactly the chunk's frames.
    """
    first, _ = padded_range(chunk, batch_size)

    def frames_at(offset: int) -> ByteArray:
        with torch.inference_mode():
            pictures = generator.decode(latents[offset : offset + batch_size])
            frames = on_host(video_frames(pictures, size, fit))
        position = first + offset
        return frames[max(0, chunk.start - position) : chunk.stop - position]

    offsets = range(0, len(latents), batch_size)
    return decoders.map(frames_at, offsets) if decoders else map(frames_at, offsets)
