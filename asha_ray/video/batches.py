"""The grid of batches over a whole track.

Which frames are decoded together depends on their numbers alone, never on where a chunk begins:
so a frame has the same bytes in every chunk that could hold it.
"""

import numpy as np

from asha_ray.values import Chunk, FloatArray, LatentPath


def padded_range(chunk: Chunk, batch_size: int) -> tuple[int, int]:
    """The chunk's frames, widened to whole batches of the grid."""
    start = chunk.start // batch_size * batch_size
    stop = -(-chunk.stop // batch_size) * batch_size
    return start, stop


def chunk_latents(path: LatentPath, chunk: Chunk, batch_size: int) -> FloatArray:
    """The latents `[whole batches, L]` that a chunk needs; past the track, its last is repeated."""
    start, stop = padded_range(chunk, batch_size)
    latents = path.latents(start, min(stop, path.num_frames))
    return np.concatenate([latents, np.repeat(latents[-1:], stop - start - len(latents), axis=0)])
