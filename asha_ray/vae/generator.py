"""A trained VAE as a generator: latents in, pictures out, and pictures in, latents out."""

from dataclasses import replace

import numpy as np
import torch

from asha_ray.vae.architecture import Vae, build_empty
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.numerics import device_kind, exact, numerics_of
from asha_ray.vae.runner import inference_form
from asha_ray.vae.training import to_tensor
from asha_ray.values import ByteArray, FloatArray, Numerics, Size

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


def numerics_for(device: str, threads: int) -> Numerics:
    """The reference: float32 on a kind of device, with the table's batches, not compiled."""
    kind = device_kind(device) if device != "cuda" or torch.cuda.is_available() else device
    return replace(exact(numerics_of(kind)), threads=threads, compile="none")


def load_vae(files: ModelFiles) -> Vae:
    """A VAE with a model directory's weights, on the CPU; what was not read of it is empty."""
    vae = build_empty(files.architecture)
    vae.load_state_dict(files.state, assign=True, strict=False)  # shapes were checked at reading
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
        self._architecture = files.architecture
        vae = load_vae(files)
        if numerics.device == "cuda":
            # Some of cuDNN's algorithms add in the order in which threads happen to come.
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        self._decode_logits = inference_form(vae.decoder, numerics)
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
        """Pictures `[m, 3, H, W]` float32, RGB in 0..1, on the device, of latents `[m, L]`.

        May be called from several threads at once.
        """
        batch = torch.from_numpy(np.ascontiguousarray(latents, np.float32))
        batch = batch.to(self.numerics.device)
        # In float32 from here: bfloat16 has but 128 steps between 0.5 and 1.
        logits = self._decode_logits(batch).to(torch.float32, memory_format=torch.contiguous_format)
        return torch.sigmoid(logits)

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
