"""Stems on disk: FLAC with 24 bits, half the size of what a separator gives, and exact.

A stem is what its file says: it is rounded once, when it is written, to 24 bits of a range that
lies 12 dB or more above the mix's peak, and whoever reads it gets the same samples ever after.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from math import ceil, log2
from pathlib import Path

import numpy as np
import soundfile

from asha_ray.audio.stems.separator import StemBlocks
from asha_ray.errors import StemsError, StorageError
from asha_ray.values import FloatArray

FULL_SCALE = 1 << 23
HEADROOM_BITS = 2
"""A stem may be louder than the mix where others cancelled it, hardly four times."""
MAX_FLAC_RATE = 655_350
BLOCK = 1 << 17
NUM_CHANNELS = 2


def range_bits(mix: FloatArray) -> int:
    """The power of two whose range holds any stem of a mix `[m, 2]`.

    >>> range_bits(np.array([[0.5, -1.0]]))
    2
    """
    peak = float(np.abs(mix).max(initial=0))
    return HEADROOM_BITS + (ceil(log2(peak)) if peak > 1 else 0)


def write_stems(blocks: StemBlocks, paths: Mapping[str, Path], sample_rate: int, bits: int) -> int:
    """Write stems to local FLAC files as they come.

    Args:
        blocks: of every stem in `paths`.
        paths: stem -> file.
        sample_rate: Hz.
        bits: from `range_bits`; needed to read them.

    Returns:
        The number of samples.

    Raises:
        StorageError: if they cannot be written.
    """
    try:
        return _write(blocks, paths, sample_rate, bits)
    except soundfile.LibsndfileError as error:
        folder = next(iter(paths.values())).parent
        raise StorageError(f"writing stems to {folder}: {error}; free some space there") from error


def _write(blocks: StemBlocks, paths: Mapping[str, Path], sample_rate: int, bits: int) -> int:
    scale, num_samples = np.float32(FULL_SCALE / 2**bits), 0
    # FLAC has no room for the highest rates in its header; what it says there is not read back.
    header_rate = sample_rate if sample_rate <= MAX_FLAC_RATE else 48_000
    with ExitStack() as stack:
        files = {
            stem: stack.enter_context(
                soundfile.SoundFile(path, "w", header_rate, NUM_CHANNELS, "PCM_24", format="FLAC")
            )
            for stem, path in paths.items()
        }
        for block in blocks:
            num_samples += len(next(iter(block.values())))
            for stem, file in files.items():
                levels = np.rint(block[stem] * scale)
                levels = np.clip(levels, -FULL_SCALE, FULL_SCALE - 1).astype(np.int32)
                file.write(levels << 8)
    return num_samples


def read_stem(path: Path, bits: int) -> Iterator[FloatArray]:
    """Read a stem's file: blocks `[m, 2]` float32.

    Raises:
        StemsError: if it is damaged.
    """
    scale = np.float32(2.0**bits / FULL_SCALE)
    try:
        with soundfile.SoundFile(path) as file:
            if file.format != "FLAC" or file.channels != NUM_CHANNELS:
                raise StemsError(
                    f"reading a stem from {path}: it is no stereo FLAC file; separate it again"
                )
            while len(levels := file.read(BLOCK, dtype="int32", always_2d=True)):
                yield (levels >> 8).astype(np.float32) * scale
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise StemsError(f"reading a stem from {path}: {error}; separate it again") from error
