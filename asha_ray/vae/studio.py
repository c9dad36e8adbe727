"""Preset `studio`: residual blocks, no norm in the decoder, sub-pixel output.

It learns in a fraction of the steps that `seed` needs, and spends little at full resolution: the
picture is read and written in 2×2 blocks of pixels (sub-pixel convolution: Shi et al., 2016,
arXiv:1609.05158). Residual branches begin at zero, so that depth costs no stability (Zhang et al.,
"Fixup", 2019, arXiv:1901.09321).

Shapes: b pictures, L latent dimensions, H and W of the picture.
"""

from typing import cast

import torch
from torch import Tensor, nn

from asha_ray.vae.seed import crop
from asha_ray.values import Size

ENCODER_FILTERS = (32, 64, 128, 192, 256)
DECODER_FILTERS = (256, 192, 128, 64, 32)
NORM_GROUP = 8
MAX_POOLED = 8


class _Residual(nn.Module):
    """`x + conv(act(conv(act(x))))`, the second convolution initialised to 0."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        normalise = nn.GroupNorm(max(1, channels // NORM_GROUP), channels) if norm else None
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(second.weight)
        parts = [normalise, nn.SiLU(), first, nn.SiLU(), second]
        self.branch = nn.Sequential(*(part for part in parts if part is not None))

    def forward(self, maps: Tensor) -> Tensor:
        return cast(Tensor, maps + self.branch(maps))


class StudioEncoder(nn.Module):
    """2×2 pixel blocks, then levels of a strided convolution and a residual block."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        width, height = image_size
        self.padding = (0, width % 2, 0, height % 2)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels = 12
        for level, count in enumerate(filters):
            layers.append(nn.Conv2d(channels, count, 3, stride=1 + (level > 0), padding=1))
            layers.append(_Residual(count, norm=_norm_fits(count)))
            channels = count
        self.features = nn.Sequential(*layers, nn.SiLU())
        factor = 2 ** len(filters)
        self.pooled = tuple(min(MAX_POOLED, -(-side // factor)) for side in (height, width))
        flat = channels * self.pooled[0] * self.pooled[1]
        self.z_mean = nn.Linear(flat, latent_dim)
        self.z_log_var = nn.Linear(flat, latent_dim)
        nn.init.zeros_(self.z_log_var.weight)
        nn.init.constant_(self.z_log_var.bias, -3.0)  # begin as nearly an autoencoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[b, L]` of pictures `[b, 3, H, W]`."""
        padded = nn.functional.pad(images, self.padding, mode="replicate")
        maps = nn.functional.adaptive_avg_pool2d(self.features(padded), self.pooled)
        flat = maps.flatten(1)
        return self.z_mean(flat), self.z_log_var(flat)


class StudioDecoder(nn.Module):
    """A dense grid, levels of doubling, convolution and residual block, then 2×2 pixel blocks."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        factor = 2 ** len(filters)
        width, height = (-(-side // factor) for side in image_size)
        self.grid = (filters[0], height, width)
        self.dense = nn.Linear(latent_dim, filters[0] * height * width)
        layers: list[nn.Module] = [_Residual(filters[0], norm=False)]
        for channels, count in zip(filters, filters[1:], strict=False):
            convolution = nn.Conv2d(channels, count, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), convolution]
            layers.append(_Residual(count, norm=False))
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(filters[-1], 12, 3, padding=1))
        self.to_pixels = nn.PixelShuffle(2)

    def logits(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` before the sigmoid, of latents `[b, L]`."""
        maps = self.dense(latents).unflatten(1, self.grid)
        return crop(self.to_pixels(self.layers(maps)), self.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` in 0..1 of latents `[b, L]`."""
        return torch.sigmoid(self.logits(latents))


def _norm_fits(channels: int) -> bool:
    return channels % NORM_GROUP == 0
