"""An artist's folder of images by uri, read once through the gate."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from asha_ray.errors import ImageError
from asha_ray.progress import Progress
from asha_ray.storage import storage_of
from asha_ray.storage.base import Storage, is_s3
from asha_ray.vae.images import is_image_name, load_image, quiet_reading
from asha_ray.values import ByteArray, Size

SHARD_IMAGES = 64
READERS = 4
NUM_NAMED = 10
"""Unreadable images that are named; the rest is counted."""


@dataclass(frozen=True)
class Skipped:
    """An image that could not be used, and why."""

    uri: str
    reason: str


class ImageShards:
    """Images in file order, in shards `[64, H, W, 3]` uint8 that may lie in shared memory."""

    def __init__(self, shards: Sequence[ByteArray]) -> None:
        self._shards = shards
        self._size = sum(len(shard) for shard in shards)

    def __len__(self) -> int:
        return self._size

    def take(self, indices: Sequence[int] | np.ndarray) -> ByteArray:
        """The images `[b, H, W, 3]` uint8 at these positions."""
        return np.stack(
            [self._shards[int(i) // SHARD_IMAGES][int(i) % SHARD_IMAGES] for i in indices]
        )


def list_images(uri: str) -> list[str]:
    """The uris of all images in a folder or prefix, in file order.

    Raises:
        ImageError: if there are none.
    """
    storage = storage_of(uri)
    if not is_s3(uri) and storage.size(uri) is not None:
        raise ImageError(f"reading images {uri}: it is a file; give the folder that holds them")
    uris = [entry.uri for entry in storage.list(uri) if is_image_name(entry.uri)]
    if not uris:
        raise ImageError(
            f"reading images {uri}: there are no images in it (.png, .jpg, .webp, .tif …); "
            "give a folder that has some"
        )
    return uris


def read_shards(
    uris: Sequence[str], size: Size, fit: str, progress: Progress, skipped: list[Skipped]
) -> Iterator[ByteArray]:
    """Read images, in order, in shards of 64; the last may be smaller.

    Args:
        uris: from `list_images`.
        size: width and height they are fitted to.
        fit: see `load_image`.
        progress: hears of each image.
        skipped: receives those that cannot be read.
    """
    storage = storage_of(uris[0])
    shard: list[ByteArray] = []
    with quiet_reading(), ThreadPoolExecutor(READERS) as readers:
        # A window of reads ahead, so that memory holds a few images and not all of them.
        for start in range(0, len(uris), SHARD_IMAGES):
            part = uris[start : start + SHARD_IMAGES]
            for image in readers.map(lambda uri: _read(storage, uri, size, fit), part):
                progress.advance()
                if isinstance(image, Skipped):
                    skipped.append(image)
                    continue
                shard.append(image)
                if len(shard) == SHARD_IMAGES:
                    yield np.stack(shard)
                    shard = []
    if shard:
        yield np.stack(shard)


def report_skipped(skipped: Sequence[Skipped], num_images: int, progress: Progress) -> None:
    """Name the images that were left out.

    Raises:
        ImageError: if that is all of them.
    """
    if not skipped:
        return
    named = [f"{item.uri}: {item.reason}" for item in skipped[:NUM_NAMED]]
    if len(skipped) > NUM_NAMED:
        named.append(f"… and {len(skipped) - NUM_NAMED} more")
    if len(skipped) == num_images:
        raise ImageError(
            f"reading images: none of {num_images} can be read; give others\n  "
            + "\n  ".join(named)
        )
    progress.note(
        f"{len(skipped)} of {num_images} images cannot be read and are skipped:\n  "
        + "\n  ".join(named)
    )


def _read(storage: Storage, uri: str, size: Size, fit: str) -> ByteArray | Skipped:
    try:
        with storage.local_copy(uri) as path:
            return load_image(path, size, fit)
    except ImageError as error:
        return Skipped(uri, str(error))
