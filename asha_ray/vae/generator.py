"""A trained VAE as a generator: latents in, pictures out, and pictures in, latents out."""

from dataclasses import replace

import numpy as np
import torch

from asha_ray.vae.architecture import Vae, build_empty
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.training import to_tensor
from asha_ray.values import ByteArray, FloatArray, Numerics, Size

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
ENCODE_BATCH = 16


def pick_device(wanted: str = "auto") -> str:
    """`cuda` or `mps` where there is one, else `cpu`."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


# Kind of device -> how a decoder computes there. Batches are small on CPU, where a batch's maps
# should stay in cache, and large on GPU, where they should fill it.
TABLE = {
    "cpu": Numerics("cpu", "float32", channels_last=True, batch_size=4),
    "cuda": Numerics("cuda", "float32", channels_last=True, batch_size=32),
    "mps": Numerics("mps", "float32", channels_last=False, batch_size=8),
}


def numerics_for(device: str, threads: int) -> Numerics:
    """How a decoder computes on a kind of device, from the table."""
    return replace(TABLE[device], threads=threads, torch_version=torch.__version__)


def load_vae(files: ModelFiles) -> Vae:
    """A VAE with a model directory's weights, on the CPU."""
    vae = build_empty(files.architecture)
    vae.load_state_dict(files.state, assign=True)
    return vae.eval().requires_grad_(requires_grad=False)


class VaeGenerator:
    """A decoder on a device, with fixed numerics. Satisfies `Generator` and `ImageEncoder`.

    Args:
        files: the model directory's content.
        numerics: how it computes; its batch size is the caller's to keep.
    """

    def __init__(self, files: ModelFiles, numerics: Numerics) -> None:
        self.numerics = numerics
        self.keyframes = files.keyframes
        self.training = files.training
        self.digest = files.digest
        self._architecture = files.architecture
        vae = load_vae(files)
        layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
        self._decoder = vae.decoder.to(numerics.device, DTYPES[numerics.dtype])
        self._decoder.to(memory_format=layout)  # type: ignore[call-overload]
        self._encoder = vae.encoder

    @property
    def latent_dim(self) -> int:
        """Latent dimensions L."""
        return self._architecture.latent_dim

    @property
    def image_size(self) -> Size:
        """Width and height of its pictures."""
        return self._architecture.image_size

    @torch.inference_mode()
    def decode(self, latents: FloatArray) -> torch.Tensor:
        """Pictures `[m, 3, H, W]` float32, RGB in 0..1, on the device, of latents `[m, L]`."""
        batch = torch.from_numpy(np.ascontiguousarray(latents, np.float32))
        batch = batch.to(self.numerics.device, DTYPES[self.numerics.dtype])
        pictures: torch.Tensor = self._decoder(batch)
        return pictures.float()

    @torch.inference_mode()
    def encode(self, images: FloatArray) -> FloatArray:
        """Latents (`z_mean`) `[m, L]` float32 of RGB pictures `[m, H, W, 3]` in 0..1."""
        tensor = torch.from_numpy(np.ascontiguousarray(images, np.float32)).permute(0, 3, 1, 2)
        means = [self._encoder(part)[0] for part in tensor.split(ENCODE_BATCH)]
        return np.asarray(torch.cat(means).numpy(), np.float32)


@torch.inference_mode()
def encode_images(
    vae: Vae, images: ByteArray, device: str, random: np.random.Generator | None = None
) -> FloatArray:
    """Keyframes `[n, L]` of pictures `[n, H, W, 3]` uint8: `z_mean`, or `z` drawn at `random`."""
    means, log_vars = [], []
    for start in range(0, len(images), ENCODE_BATCH):
        mean, log_var = vae.encoder(to_tensor(images[start : start + ENCODE_BATCH], device))
        means.append(mean.cpu())
        log_vars.append(log_var.cpu())
    if not means:
        return np.zeros((0, vae.architecture.latent_dim), np.float32)
    z_mean = torch.cat(means).numpy()
    if random is None:
        return z_mean
    noise = random.standard_normal(z_mean.shape, dtype=np.float32)
    return np.asarray(z_mean + np.exp(torch.cat(log_vars).numpy() / 2) * noise, np.float32)
