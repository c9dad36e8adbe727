"""The loss, one optimisation step, and the order of batches: a function of seed and epoch alone.

Shapes: b pictures of a worker's batch, L latent dimensions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from asha_ray.vae.architecture import Reconstruction
from asha_ray.values import FloatArray, IndexArray

WARMUP_STEPS = 20
FINAL_SHARE = 0.1


@dataclass(frozen=True)
class Loss:
    """Batch means: `total = reconstruction + kl_weight * kl`, all scalars."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


@dataclass(frozen=True)
class Batch:
    """One worker's share of a batch.

    Attributes:
        indices: `[b]` which images.
        noise: `[b, L]` float32, standard normal.
        weight: what this share's mean counts in the mean over workers.
    """

    indices: IndexArray
    noise: FloatArray
    weight: float


def vae_loss(images: Tensor, output: Reconstruction, kl_weight: float = 1.0) -> Loss:
    """The article's loss: binary cross-entropy, mean over RGB, summed over pixels, plus KL.

    Args:
        images: `[b, 3, H, W]` in 0..1.
        output: what the model made of them.
        kl_weight: 1 is the article's.
    """
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(
        output.logits, images, reduction="none"
    )
    reconstruction = cross_entropy.mean(1).sum((1, 2)).mean()
    mean, log_var = output.z_mean, output.z_log_var
    kl = (-0.5 * (1 + log_var - mean.square() - log_var.exp())).sum(1).mean()
    return Loss(reconstruction + kl_weight * kl, reconstruction, kl)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    noise: Tensor,
    *,
    kl_weight: float,
    weight: float = 1.0,
) -> Loss:
    """One step of gradient descent on a batch `[b, 3, H, W]`; returns its loss, detached."""
    optimizer.zero_grad(set_to_none=True)
    loss = vae_loss(images, model(images, noise), kl_weight)
    (loss.total * weight).backward()
    optimizer.step()
    return Loss(loss.total.detach(), loss.reconstruction.detach(), loss.kl.detach())


def epoch_batches(
    num_images: int,
    latent_dim: int,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int = 0,
    num_workers: int = 1,
) -> Iterator[Batch]:
    """One worker's batches of an epoch.

    A batch of all workers together holds `batch_size * num_workers` images, dealt out one by one,
    so that two workers see and compute what one with the doubled batch would. Where the last
    batch does not fill every worker, shares are weighted by their size; a worker with none
    repeats an image with weight 0, since every worker must take part in every step.

    Args:
        num_images: images in the data set.
        latent_dim: latent dimensions L.
        batch_size: images per worker.
        seed: of the training.
        epoch: from 0.
        rank: which worker, from 0.
        num_workers: of the training.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(num_images)
    together = batch_size * num_workers
    for start in range(0, num_images, together):
        indices = order[start : start + together]
        noise = generator.standard_normal((len(indices), latent_dim), dtype=np.float32)
        share = slice(rank, None, num_workers) if rank < len(indices) else slice(0, 1)
        weight = len(indices[share]) * num_workers / len(indices) if rank < len(indices) else 0.0
        yield Batch(indices[share], noise[share], weight)


def learning_rate_at(step: int, num_steps: int, learning_rate: float, schedule: str) -> float:
    """The learning rate of a step, from 0: `constant`, or `cosine`.

    `cosine` rises linearly over the first 20 steps (a tenth of a short training), then falls along
    half a cosine to a tenth.
    """
    if schedule == "constant":
        return learning_rate
    warmup = max(1, min(WARMUP_STEPS, num_steps // 10))
    rise = min(1.0, (step + 1) / warmup)
    progress = min(1.0, max(0, step - warmup) / max(1, num_steps - warmup))
    fall = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
    return learning_rate * rise * fall


def num_batches(num_images: int, batch_size: int, num_workers: int) -> int:
    """Steps of one epoch."""
    return -(-num_images // (batch_size * num_workers))


def to_tensor(images: np.ndarray, device: torch.device | str) -> Tensor:
    """Pictures `[b, H, W, 3]` uint8 as `[b, 3, H, W]` float32 in 0..1 on `device`."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)


def psnr_db(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1, at most 100."""
    return float(-10 * np.log10(max(mean_squared_error, 1e-10)))
