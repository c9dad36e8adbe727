"""A track cut into parts whose stems can be separated one by one, anywhere, in any order.

Each part takes along the sound around it that its stems depend on, so what comes out of all of them
is what the whole track would have given. A separator says how much that is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asha_ray.audio.stems.pcm import to_stereo
from asha_ray.audio.stems.separator import Separator, StemBlocks, separate_range
from asha_ray.values import FloatArray, PcmStream

PART_S = 140
"""Long enough that what is separated twice, about 12 s at each seam, is a small share."""

MAX_PART_SAMPLES = 8_000_000
"""64 MB, whatever the sample rate: some parts are held at once."""


@dataclass(frozen=True)
class Part:
    """Some consecutive samples of a track, with all that their stems depend on.

    Attributes:
        number: position in the track, from 0.
        start: first sample that is its own.
        stop: sample after its last, at most the track's length.
        first_sample: where in the track `samples` begins, at or before `start`.
        samples: `[m, 2]` float32; of a part but the last, up to some way behind `stop`.
        sample_rate: of the track, in Hz.
    """

    number: int
    start: int
    stop: int
    first_sample: int
    samples: FloatArray
    sample_rate: int


def iter_parts(pcm: PcmStream, separator: Separator, part_s: float = PART_S) -> Iterator[Part]:
    """Cut a stream into parts, decoding no further than the one that is asked for.

    Args:
        pcm: a track; its channels are mixed to two.
        separator: says where a cut costs least, and what a part depends on.
        part_s: about how long a part is, in seconds. A separator that only knows whole tracks gets
            one part, however long.
    """
    sound, rate = _Window(pcm), pcm.sample_rate
    length = min(round(part_s * rate), MAX_PART_SAMPLES)
    number = start = 0
    while True:
        stop = separator.cut_near(start + length, rate)
        last = None if stop is None else separator.block_stop(stop, rate)
        # One sample more, so that the track's last part is known to be the last.
        sound.read_up_to(None if last is None else last + 1)
        end = sound.end if stop is None else min(stop, sound.end)
        first = separator.block_start(start, rate)
        yield Part(number, start, end, first, sound.between(first, last), rate)
        if stop is None or sound.end <= stop:
            return
        number, start = number + 1, stop
        sound.forget_before(separator.block_start(start, rate))


def separate_part(separator: Separator, part: Part) -> StemBlocks:
    """Stems of the samples `start..stop` of a part: those of the whole track."""

    def open_at(position: int) -> PcmStream:
        samples = part.samples[position - part.first_sample :]
        return PcmStream(part.sample_rate, 2, iter([samples]))

    return separate_range(separator, open_at, part.sample_rate, part.start, part.stop)


class _Window:
    """A stretch of a stream that moves forward: read at its end, forgotten at its beginning."""

    def __init__(self, pcm: PcmStream) -> None:
        self._blocks = (to_stereo(block) for block in pcm.blocks)
        self._samples = np.zeros((0, 2), np.float32)
        self._start = 0

    @property
    def end(self) -> int:
        """The sample after the last that was read."""
        return self._start + len(self._samples)

    def read_up_to(self, stop: int | None) -> None:
        """Read until sample `stop` is near, or to the end of the stream."""
        parts, end = [self._samples], self.end
        while stop is None or end < stop:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(block)
            end += len(block)
        self._samples = np.concatenate(parts) if len(parts) > 1 else parts[0]

    def between(self, start: int, stop: int | None) -> FloatArray:
        """The samples `start..stop`, as far as they were read; a copy that may be kept."""
        last = None if stop is None else max(0, stop - self._start)
        return self._samples[start - self._start : last].copy()

    def forget_before(self, start: int) -> None:
        """Let go of all before `start`."""
        self._samples = self._samples[start - self._start :].copy()
        self._start = start
