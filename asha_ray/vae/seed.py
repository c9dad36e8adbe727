"""Preset `seed`: the article's encoder and decoder, layer for layer.

Source: ASHA FM, "Audio-Reactive Visuals using Generative AI: Our First Exploration with VAEs"
(2023). At 448×448 with 200 latent dimensions shapes and parameter counts are the article's; at
other sizes the encoder pools to at most 28×28 before its dense layers, and the decoder starts
from a grid that is large enough and crops.

Shapes: b pictures, L latent dimensions, H and W of the picture.
"""

import torch
from torch import Tensor, nn

from asha_ray.values import Size

ENCODER_FILTERS = (32, 64, 128, 256)
DECODER_FILTERS = (256, 128, 64, 32, 16)
LAYERS_PER_GROUP = (4, 4, 3, 3, 3)
GRID_CHANNELS = 128
MAX_POOLED = 28


class SeedEncoder(nn.Module):
    """3×3 convolutions with ReLU and 2×2 max-pooling, then dense mean and log-variance."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for count in filters:
            # Rounding up keeps pictures smaller than 2 ** levels alive; 448 divides evenly.
            pool = nn.MaxPool2d(2, ceil_mode=True)
            layers += [nn.Conv2d(channels, count, 3, padding=1), nn.ReLU(), pool]
            channels = count
        self.features = nn.Sequential(*layers)
        width, height = (min(MAX_POOLED, -(-side // 2 ** len(filters))) for side in image_size)
        self.pooled = (height, width)
        self.z_mean = nn.Linear(channels * height * width, latent_dim)
        self.z_log_var = nn.Linear(channels * height * width, latent_dim)
        self.apply(glorot_uniform)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[b, L]` of pictures `[b, 3, H, W]`."""
        maps = self.features(images)
        if maps.shape[2:] != self.pooled:
            maps = nn.functional.adaptive_max_pool2d(maps, self.pooled)
        flat = maps.flatten(1)
        return self.z_mean(flat), self.z_log_var(flat)


class SeedDecoder(nn.Module):
    """A dense grid, then groups of 3×3 transposed convolutions, each of which doubles the size."""

    def __init__(self, image_size: Size, latent_dim: int, filters: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        factor = 2 ** (len(filters) + 1)
        width, height = (-(-side // factor) for side in image_size)
        self.grid = (GRID_CHANNELS, height, width)
        self.dense = nn.Linear(latent_dim, GRID_CHANNELS * height * width)
        layers: list[nn.Module] = []
        channels = GRID_CHANNELS
        for group, count in enumerate(filters):
            layers += [_doubling(channels, count), nn.ReLU()]
            num_layers = LAYERS_PER_GROUP[min(group, len(LAYERS_PER_GROUP) - 1)]
            for _ in range(num_layers - 1):
                layers += [nn.ConvTranspose2d(count, count, 3, padding=1), nn.ReLU()]
            channels = count
        self.layers = nn.Sequential(*layers, _doubling(channels, 3))
        self.apply(glorot_uniform)

    def logits(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` before the sigmoid, of latents `[b, L]`."""
        maps = torch.tanh(self.dense(latents)).unflatten(1, self.grid)
        return crop(self.layers(maps), self.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures `[b, 3, H, W]` in 0..1 of latents `[b, L]`."""
        return torch.sigmoid(self.logits(latents))


def glorot_uniform(module: nn.Module) -> None:
    """Initialise a layer as Keras does: Glorot uniform weights, biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def crop(maps: Tensor, image_size: Size) -> Tensor:
    """The middle of `maps [b, 3, H', W']`, at the size of the picture."""
    width, height = image_size
    top = (maps.shape[2] - height) // 2
    left = (maps.shape[3] - width) // 2
    return maps[:, :, top : top + height, left : left + width]


def _doubling(channels: int, count: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, count, 3, stride=2, padding=1, output_padding=1)
