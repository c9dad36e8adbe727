"""Blocks of a track that were measured, on disk until all have been.

What a block's onset strength is made of is known only when the loudest is, so all are kept till
then: some 10 kB for each second of sound, and of several sources at once.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from asha_ray.audio.measure import BlockFeatures
from asha_ray.audio.merge import Curves, merge_in_order
from asha_ray.audio.rise import Rise
from asha_ray.errors import StorageError

RISES = tuple(field.name for field in fields(Rise))
NUMBERS = ("first_frame", "loudest_db", "source_samples", "num_replaced")
CURVES = tuple(f.name for f in fields(BlockFeatures) if f.name not in {"rise", *NUMBERS})


class BlockFile:
    """A temporary file of measured blocks, as a context that deletes it.

    Args:
        sample_rate: of the source, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._num_blocks = 0
        self._loudest_db = -np.inf
        with _told():
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="asha-blocks-")  # noqa: SIM115

    def write(self, blocks: Iterable[BlockFeatures]) -> Self:
        """Add blocks, in order.

        Raises:
            StorageError: if there is no room for them.
        """
        for block in blocks:
            numbers = np.array([getattr(block, name) for name in NUMBERS], np.float64)
            rises = [getattr(block.rise, name) for name in RISES]
            curves = [getattr(block, name) for name in CURVES]
            with _told():
                for array in (numbers, *rises, *curves):
                    np.save(self._file, array, allow_pickle=False)
            self._num_blocks += 1
            self._loudest_db = max(self._loudest_db, block.loudest_db)
        return self

    def merged(self) -> Curves:
        """The whole track's curves."""
        self._file.seek(0)
        return merge_in_order(self._blocks(), self._loudest_db, self._sample_rate)

    def _blocks(self) -> Iterator[BlockFeatures]:
        for _ in range(self._num_blocks):
            first_frame, loudest_db, source_samples, num_replaced = self._read().tolist()
            rise = Rise(**{name: self._read() for name in RISES})
            yield BlockFeatures(
                first_frame=int(first_frame),
                rise=rise,
                loudest_db=loudest_db,
                source_samples=int(source_samples),
                num_replaced=int(num_replaced),
                **{name: self._read() for name in CURVES},
            )

    def _read(self) -> NDArray[Any]:
        return np.asarray(np.load(self._file, allow_pickle=False))

    def close(self) -> None:
        """Delete it."""
        self._file.close()

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Delete it."""
        self.close()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"keeping what was measured in {tempfile.gettempdir()}: {error}; free some space "
            "there, or set TMPDIR"
        ) from error
