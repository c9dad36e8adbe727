"""Sound on its way into a separator and back: two channels, the right rate, the same length."""

from collections.abc import Callable, Iterator
from math import gcd

import numpy as np
import soxr

from asha_ray.values import FloatArray, PcmStream

MAX_LEVEL = 1e4
RESAMPLER = "HQ"
RESAMPLER_REACH_S = 0.05
"""How far a resampled sample looks to either side (measured: 2 ms at 44.1 kHz, 87 samples)."""
RESAMPLE_BLOCK = 1 << 16

# Left and right shares of each channel, in the order of WAV and ffmpeg: the front ones whole, the
# centre and the rear at -3 dB (ITU-R BS.775), the low frequency effects not at all.
_HALF = 0.5**0.5
_LEFT, _RIGHT, _CENTRE, _EFFECTS = (1.0, 0.0), (0.0, 1.0), (_HALF, _HALF), (0.0, 0.0)
_REAR_LEFT, _REAR_RIGHT, _REAR_CENTRE = (_HALF, 0.0), (0.0, _HALF), (0.5, 0.5)
_SIDES = (_REAR_LEFT, _REAR_RIGHT)
LAYOUTS = {
    1: ((1.0, 1.0),),
    2: (_LEFT, _RIGHT),
    3: (_LEFT, _RIGHT, _CENTRE),
    4: (_LEFT, _RIGHT, *_SIDES),
    5: (_LEFT, _RIGHT, _CENTRE, *_SIDES),
    6: (_LEFT, _RIGHT, _CENTRE, _EFFECTS, *_SIDES),
    7: (_LEFT, _RIGHT, _CENTRE, _EFFECTS, _REAR_CENTRE, *_SIDES),
    8: (_LEFT, _RIGHT, _CENTRE, _EFFECTS, *_SIDES, *_SIDES),
}


def to_stereo(block: FloatArray) -> FloatArray:
    """A block `[m, c]` as `[m, 2]`: one channel doubled, more than two mixed down.

    Up to eight channels are taken for the usual layouts; of more, the even ones go left and the odd
    ones right. Each side's shares sum to 1, so nothing clips. Damaged samples become silence.
    """
    good = np.abs(block) <= MAX_LEVEL
    if not good.all():
        block = np.where(good, block, np.float32(0))
    num_channels = block.shape[1]
    if num_channels == 2:
        return np.ascontiguousarray(block, np.float32)
    alternating = [_RIGHT if channel % 2 else _LEFT for channel in range(num_channels)]
    shares = np.array(LAYOUTS.get(num_channels, alternating), np.float32)
    return np.asarray(block @ (shares / shares.sum(axis=0)), np.float32)


def resampled(blocks: Iterator[FloatArray], from_rate: int, to_rate: int) -> Iterator[FloatArray]:
    """Blocks `[m, c]` at another sample rate, in step with the original from its first sample."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = None
    for block in blocks:
        stream = stream or soxr.ResampleStream(
            from_rate, to_rate, block.shape[1], dtype="float32", quality=RESAMPLER
        )
        for first in range(0, len(block), RESAMPLE_BLOCK):
            part = stream.resample_chunk(block[first : first + RESAMPLE_BLOCK])
            if len(part):
                yield part
    if stream is not None:
        num_channels = block.shape[1]
        rest = stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)
        if len(rest):
            yield rest


def at_rate(
    pcm: PcmStream,
    rate: int,
    separate: Callable[[Iterator[FloatArray]], Iterator[FloatArray]],
    num_columns: int,
) -> Iterator[FloatArray]:
    """Run a separator that knows one sample rate on sound of any, mixed to two channels.

    Args:
        pcm: the sound.
        rate: Hz at which `separate` works.
        separate: turns blocks `[m, 2]` at `rate` into blocks `[m, k]` at `rate`.
        num_columns: k, which is two for each stem.

    Returns:
        Blocks `[m, k]` at the sound's own rate, in all exactly as long as the sound.
    """
    if pcm.sample_rate == rate:
        return separate(to_stereo(block) for block in pcm.blocks)
    length = Counter()
    source = (to_stereo(block) for block in length.counted(pcm.blocks))
    stems = separate(resampled(source, pcm.sample_rate, rate))
    return _fitted(resampled(stems, rate, pcm.sample_rate), length, num_columns)


def aligned(sample: int, sample_rate: int, rate: int) -> int:
    """The last sample at or before `sample` whose time is also a sample's at `rate`.

    >>> aligned(1000, 48_000, 44_100)
    960
    """
    step = sample_rate // gcd(sample_rate, rate)
    return max(0, sample) // step * step


class Counter:
    """Counts samples that pass."""

    def __init__(self) -> None:
        self.num_samples = 0

    def counted(self, blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        """The same blocks."""
        for block in blocks:
            self.num_samples += len(block)
            yield block


def _fitted(
    blocks: Iterator[FloatArray], length: Counter, num_columns: int
) -> Iterator[FloatArray]:
    # Two roundings of a length may leave a sample too many or too few. What comes out lags behind
    # what went in, so only the end is ever cut.
    num_given = 0
    for block in blocks:
        part = block[: length.num_samples - num_given]
        num_given += len(part)
        if len(part):
            yield part
    if num_given < length.num_samples:
        yield np.zeros((length.num_samples - num_given, num_columns), np.float32)
