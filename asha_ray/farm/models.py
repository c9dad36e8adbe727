"""Models by uri: loaded once, from a local folder or a bucket."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asha_ray.errors import ModelError
from asha_ray.scratch import scratch_folder
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import digest_of
from asha_ray.vae.model_dir import FILES, ModelFiles, read_keyframes, read_model
from asha_ray.values import ByteArray, FloatArray, Numerics, Size

if TYPE_CHECKING:
    from asha_ray.vae.generator import VaeGenerator

DECODE_BATCH = 8


class Model:
    """A trained model: NumPy in and out.

    Attributes:
        latent_dim: latent dimensions L.
        image_size: width and height of its pictures.
        keyframes: `[num_keyframes, L]` latents of the images it learned, in file order.
    """

    def __init__(self, generator: "VaeGenerator") -> None:
        self._generator = generator
        self.latent_dim = generator.latent_dim
        self.image_size: Size = generator.image_size
        self.keyframes: FloatArray = generator.keyframes

    def encode(self, images: FloatArray) -> FloatArray:
        """Latents `[n, L]` float32 of pictures `[n, H, W, 3]`, RGB float in 0..1.

        Raises:
            ModelError: if the pictures have another shape than the model's.
        """
        images = np.asarray(images, np.float32)
        width, height = self.image_size
        if images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise ModelError(
                f"encoding pictures: their shape is {list(images.shape)}, but the model takes "
                f"[n, {height}, {width}, 3]"
            )
        return self._generator.encode(images)

    def decode(self, z: FloatArray) -> ByteArray:
        """Pictures `[n, H, W, 3]` uint8 of latents `[n, L]`.

        Raises:
            ModelError: if the latents have another shape than the model's, or are not finite.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim or not np.isfinite(z).all():
            raise ModelError(
                f"decoding latents: the model takes finite values of shape [n, {self.latent_dim}], "
                f"not {list(z.shape)}"
            )
        width, height = self.image_size
        pictures = np.empty((len(z), height, width, 3), np.uint8)
        for start in range(0, len(z), DECODE_BATCH):
            decoded = self._generator.decode(z[start : start + DECODE_BATCH])
            rounded = (decoded.permute(0, 2, 3, 1) * 255).round().clamp(0, 255)
            pictures[start : start + DECODE_BATCH] = rounded.byte().cpu().numpy()
        return pictures


def load_model(uri: str | Path) -> Model:
    """Load a model directory, local or `s3://`, on the best device of this machine.

    Raises:
        ModelError: if it is missing, damaged or newer than this version.
    """
    from asha_ray.vae.generator import numerics_for, pick_device

    return Model(load_generator(str(uri), numerics_for(pick_device(), threads=0)))


def load_generator(uri: str, numerics: Numerics) -> "VaeGenerator":
    """Load a model directory as a generator with fixed numerics.

    Raises:
        ModelError: if it is missing, damaged or newer than this version.
    """
    from asha_ray.vae.generator import VaeGenerator

    return VaeGenerator(load_files(uri), numerics)


def load_decoder(uri: str, numerics: Numerics) -> "VaeGenerator":
    """Like `load_generator`, but it can only decode, and takes a hundredth of the memory.

    Raises:
        ModelError: if the directory is missing, damaged or newer than this version.
    """
    from asha_ray.vae.generator import VaeGenerator

    return VaeGenerator(load_files(uri, decoder_only=True), numerics)


def load_files(uri: str, *, decoder_only: bool = False) -> ModelFiles:
    """Read and check a model directory, local or `s3://`; see `read_model`."""
    with local_model(uri) as folder:
        return read_model(folder, uri, decoder_only=decoder_only)


def load_keyframes(uri: str, latent_dim: int) -> FloatArray:
    """Read keyframes `[num_keyframes, L]` from an `.npy` file, local or `s3://`."""
    with storage_of(uri).local_copy(uri) as path:
        return read_keyframes(path, latent_dim, uri)


@contextmanager
def local_model(uri: str) -> Iterator[Path]:
    """A model directory as a local folder while the context lasts."""
    if not is_s3(uri):
        folder = Path(uri)
        if not folder.is_dir():
            what = "it is a file" if folder.exists() else "there is no such folder"
            raise ModelError(
                f"reading model {uri}: {what}; give a folder that `asha-ray train` wrote"
            )
        yield folder
        return
    with _cached(uri) as folder:
        yield folder


@contextmanager
def _cached(uri: str) -> Iterator[Path]:
    """A model of a bucket, fetched once for each node and version, whoever asks for it.

    Its name in the cache is a hash of where it lies and of its parts' versions, so a model that is
    trained anew is another entry. It appears whole, by a rename; whoever loses a race uses what the
    winner has put there.
    """
    storage = storage_of(uri)
    versions = {part: storage.version(join(uri, part)) for part in FILES}
    entry = cache_folder() / digest_of({"uri": uri, "versions": versions})[:40]
    with ExitStack() as stack:
        if not entry.is_dir():
            try:
                entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                base: Path | None = entry.parent
            except OSError:  # a home that cannot be written to: fetch it for this process alone
                base = None
            fetched = stack.enter_context(scratch_folder("model", base)) / "model"
            fetched.mkdir(mode=0o700)
            for part, version in versions.items():
                if version is not None:  # reading the model says which part is missing
                    storage.download(join(uri, part), fetched / part)
            with suppress(OSError):
                if base is not None and all(versions.values()):
                    fetched.rename(entry)
            if not entry.is_dir():
                entry = fetched
        yield entry


def cache_folder() -> Path:
    """Where this user's copies of models in buckets are kept; any of them may be deleted."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "asha-ray" / "models"
