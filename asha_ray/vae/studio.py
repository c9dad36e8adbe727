"""Preset `studio`: residual blocks, bilinear doubling, sub-pixel output.

It learns in a fraction of the steps that `seed` needs, and spends little at full resolution: the
picture is read and written in 2×2 blocks of pixels (sub-pixel convolution: Shi et al., 2016,
arXiv:1609.05158), and between levels a 1×1 convolution changes the channels where the picture is
smaller. Residual branches begin at zero, so that depth costs no stability (Zhang et al., "Fixup",
2019, arXiv:1901.09321). Group norms see one picture alone and keep no statistics (Wu and He, 2018,
arXiv:1803.08494).

Shapes: b pictures, L latent dimensions, H and W of the picture.
"""

import math
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from asha_ray.vae.seed import crop
from asha_ray.values import Size

ENCODER_FILTERS = (32, 64, 128, 192, 256)
DECODER_FILTERS = (256, 192, 128, 64, 32)
NORM_GROUP = 8
MAX_POOLED = 8
FIRST_LOG_VAR = -3.0
FIRST_MEAN_GAIN = 3.0
MAX_LOG_VAR = 8.0


class _Residual(nn.Module):
    """`x + conv(act(conv(act(norm(x)))))`, the second convolution initialised to 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(second.weight)
        self.branch = nn.Sequential(_norm(channels), nn.SiLU(), first, nn.SiLU(), second)

    def forward(self, maps: Tensor) -> Tensor:
        return cast(Tensor, maps + self.branch(maps))


class StudioEncoder(nn.Module):
    """2×2 pixel blocks, a convolution, then levels of a strided one and a residual block."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        width, height = image_size
        self.padding = (0, width % 2, 0, height % 2)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, filters[0], 3, padding=1)]
        layers.append(nn.SiLU())
        for channels, count in pairwise(filters):
            layers += [nn.Conv2d(channels, count, 3, stride=2, padding=1), _Residual(count)]
        self.features = nn.Sequential(*layers, nn.SiLU())
        factor = 2 ** len(filters)
        self.pooled = tuple(min(MAX_POOLED, -(-side // factor)) for side in (height, width))
        flat = filters[-1] * self.pooled[0] * self.pooled[1]
        self.z_mean = nn.Linear(flat, latent_dim)
        self.z_log_var = nn.Linear(flat, latent_dim)
        # Begin as nearly an autoencoder, so that the noise never drowns the first signals.
        with torch.no_grad():
            self.z_mean.weight.mul_(FIRST_MEAN_GAIN)
        nn.init.zeros_(self.z_log_var.weight)
        first = MAX_LOG_VAR * math.atanh(FIRST_LOG_VAR / MAX_LOG_VAR)
        nn.init.constant_(self.z_log_var.bias, first)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[b, L]` of pictures `[b, 3, H, W]`."""
        padded = nn.functional.pad(images, self.padding, mode="replicate")
        maps = nn.functional.adaptive_avg_pool2d(self.features(padded), self.pooled)
        flat = maps.flatten(1)
        # The loss holds exp(log-variance): without a bound one bad step can make it infinite.
        log_var = MAX_LOG_VAR * torch.tanh(self.z_log_var(flat) / MAX_LOG_VAR)
        return self.z_mean(flat), log_var


class StudioDecoder(nn.Module):
    """A dense grid, levels of a residual block and doubling, then 2×2 pixel blocks."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        factor = 2 ** len(filters)
        width, height = (-(-side // factor) for side in image_size)
        self.grid = (filters[0], height, width)
        self.dense = nn.Linear(latent_dim, filters[0] * height * width)
        nn.init.normal_(self.dense.weight, std=latent_dim**-0.5)
        layers: list[nn.Module] = [_Residual(filters[0])]
        for channels, count in pairwise(filters):
            narrow = nn.Conv2d(channels, count, 1)
            nn.init.kaiming_normal_(narrow.weight, nonlinearity="linear")
            # Linear in between, since nearest neighbours leave a grid on the picture.
            layers += [narrow, nn.Upsample(scale_factor=2, mode="bilinear"), _Residual(count)]
        last = filters[-1]
        layers += [_norm(last), nn.SiLU(), nn.Conv2d(last, 12, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.to_pixels = nn.PixelShuffle(2)

    def logits(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` before the sigmoid, of latents `[b, L]`."""
        maps = self.dense(latents).unflatten(1, self.grid)
        return crop(self.to_pixels(self.layers(maps)), self.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` in 0..1 of latents `[b, L]`."""
        return torch.sigmoid(self.logits(latents))


def _norm(channels: int) -> nn.Module:
    if channels == 1:  # a lone value has no spread to divide by
        return nn.Identity()
    groups = channels // NORM_GROUP if channels % NORM_GROUP == 0 else 1
    return nn.GroupNorm(groups, channels)
