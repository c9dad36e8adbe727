"""A stream of sound cut into blocks that can be analysed one by one, anywhere, in any order.

The track is resampled to the grid's rate as it flows by, and each block takes along the samples
that its own frames reach into, so what is measured in it is what is measured in the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import soxr

from asha_ray.audio.decode import replace_damage
from asha_ray.audio.grid import GRID_FPS, HOP_LENGTH, N_FFT, SAMPLE_RATE, num_grid_frames
from asha_ray.values import AudioClip, FloatArray, PcmStream

BLOCK_FRAMES = 60 * GRID_FPS
"""A minute. Whole seconds, because some of what is measured is measured by the second."""

CONTEXT_SAMPLES = N_FFT // 2 + HOP_LENGTH
"""What a block holds before its first frame's centre: half a window, and the frame before."""

CLIP_SAMPLES = 1 << 18


@dataclass(frozen=True)
class Block:
    """Some consecutive frames of the grid, with all samples that they depend on.

    Attributes:
        first_frame: number of its first frame in the track.
        num_frames: frames that are its own.
        samples: `[(num_frames + 4) * 512]` float32 at the grid's rate, from the start of the frame
            before the first (silence, where the track has none) to the end of the last.
        source_samples: samples of the source, at its own rate, up to this block's end or beyond;
            in the last block, all of them.
        num_replaced: samples among those that were damaged and count as silence.
    """

    first_frame: int
    num_frames: int
    samples: FloatArray
    source_samples: int
    num_replaced: int


def iter_blocks(pcm: PcmStream, block_frames: int = BLOCK_FRAMES) -> Iterator[Block]:
    """Cut a stream into blocks, decoding no further than the one that is asked for.

    Args:
        pcm: a stream in any sample rate and number of channels; it is mixed to one.
        block_frames: frames of the grid in each block but the last, whole seconds.
    """
    tally = Tally()
    kept, kept_start, first_frame = [np.zeros(CONTEXT_SAMPLES, np.float32)], -CONTEXT_SAMPLES, 0
    num_kept = CONTEXT_SAMPLES
    for part in _resampled(mono_blocks(pcm, tally), pcm.sample_rate, tally):
        kept.append(part)
        num_kept += len(part)
        # One sample more than the block reaches to: its last frame is surely not the track's last.
        while num_kept > (block_frames + 4) * HOP_LENGTH:
            samples = np.concatenate(kept)
            yield _block(first_frame, block_frames, samples, tally)
            first_frame += block_frames
            kept_start += block_frames * HOP_LENGTH
            kept = [samples[block_frames * HOP_LENGTH :].copy()]
            num_kept = len(kept[0])
    num_frames = num_grid_frames(kept_start + num_kept)
    samples = np.concatenate(kept)
    while first_frame < num_frames:
        size = min(block_frames, num_frames - first_frame)
        yield _block(first_frame, size, samples, tally)
        samples = samples[size * HOP_LENGTH :]
        first_frame += size


def stream_of_clip(clip: AudioClip) -> PcmStream:
    """A decoded track as a stream, so that both take the same way."""
    starts = range(0, len(clip.samples), CLIP_SAMPLES)
    blocks = (clip.samples[start : start + CLIP_SAMPLES, None] for start in starts)
    return PcmStream(clip.sample_rate, 1, blocks)


@dataclass
class Tally:
    """Counts samples as they pass.

    Attributes:
        source_samples: of each channel.
        num_replaced: of all channels, that were damaged and became silence.
    """

    source_samples: int = 0
    num_replaced: int = 0


def clean_blocks(pcm: PcmStream, tally: Tally) -> Iterator[FloatArray]:
    """A stream's blocks `[m, c]`, damage replaced, all of it counted."""
    for block in pcm.blocks:
        clean, num_replaced = replace_damage(block)
        tally.num_replaced += num_replaced
        tally.source_samples += len(clean)
        yield clean


def mono_blocks(pcm: PcmStream, tally: Tally | None = None) -> Iterator[FloatArray]:
    """A stream's blocks `[m]`, damage replaced and all channels mixed to one."""
    for clean in clean_blocks(pcm, tally or Tally()):
        yield clean[:, 0] if clean.shape[1] == 1 else clean.mean(axis=1, dtype=np.float32)


def _block(first_frame: int, num_frames: int, samples: FloatArray, tally: Tally) -> Block:
    length = (num_frames + 4) * HOP_LENGTH
    own = samples[:length]
    if len(own) < length:
        own = np.pad(own, (0, length - len(own)))
    return Block(first_frame, num_frames, own, tally.source_samples, tally.num_replaced)


def _resampled(
    blocks: Iterator[FloatArray], sample_rate: int, tally: Tally
) -> Iterator[FloatArray]:
    """The blocks at the grid's rate, `ceil(samples * ratio)` in all, as librosa's resampling."""
    if sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    num_done = 0
    for block in blocks:
        part = stream.resample_chunk(np.ascontiguousarray(block))
        num_done += len(part)
        yield part
    # In floating point, as librosa computes it.
    num_due = ceil(tally.source_samples * (SAMPLE_RATE / sample_rate)) - num_done
    last = stream.resample_chunk(np.zeros(0, np.float32), last=True)[: max(0, num_due)]
    yield np.pad(last, (0, max(0, num_due - len(last))))
