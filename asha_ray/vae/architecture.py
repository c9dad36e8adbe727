"""What shape a VAE has, and how one is built from that.

An architecture is a preset (`seed` is the article's, `studio` a residual one of our own) with a
picture size, a latent size and filters. Another preset is a new file and a line in `PRESETS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asha_ray.errors import ModelError
from asha_ray.vae import seed, studio
from asha_ray.values import Size

MAX_LAYERS = 16


@dataclass(frozen=True)
class Architecture:
    """The shape of a VAE.

    Attributes:
        name: the preset.
        image_size: width and height of its pictures.
        latent_dim: latent dimensions L.
        encoder_filters: channels of the encoder's levels, largest picture first.
        decoder_filters: channels of the decoder's levels, smallest picture first.
    """

    name: str
    image_size: Size
    latent_dim: int
    encoder_filters: tuple[int, ...]
    decoder_filters: tuple[int, ...]


AnyDecoder = seed.SeedDecoder | studio.StudioDecoder


class Preset(NamedTuple):
    """How a preset builds its two halves, and its usual filters."""

    encoder: Callable[[Size, int, tuple[int, ...]], nn.Module]
    decoder: Callable[[Size, int, tuple[int, ...]], AnyDecoder]
    encoder_filters: tuple[int, ...]
    decoder_filters: tuple[int, ...]


PRESETS: Mapping[str, Preset] = {
    "seed": Preset(seed.SeedEncoder, seed.SeedDecoder, seed.ENCODER_FILTERS, seed.DECODER_FILTERS),
    "studio": Preset(
        studio.StudioEncoder, studio.StudioDecoder, studio.ENCODER_FILTERS, studio.DECODER_FILTERS
    ),
}


class Reconstruction(NamedTuple):
    """What a VAE makes of a batch: `logits [b, 3, H, W]`, `z_mean [b, L]`, `z_log_var [b, L]`."""

    logits: Tensor
    z_mean: Tensor
    z_log_var: Tensor


class Vae(nn.Module):
    """An encoder and a decoder of pictures `[b, 3, H, W]` in 0..1."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        preset = PRESETS[architecture.name]
        self.architecture = architecture
        size, latent_dim = architecture.image_size, architecture.latent_dim
        self.encoder: nn.Module = preset.encoder(size, latent_dim, architecture.encoder_filters)
        self.decoder: AnyDecoder = preset.decoder(size, latent_dim, architecture.decoder_filters)

    def forward(self, images: Tensor, noise: Tensor) -> Reconstruction:
        """Encode, sample `z = z_mean + exp(z_log_var / 2) * noise`, and decode to logits."""
        z_mean, z_log_var = self.encoder(images)
        latents = z_mean + torch.exp(z_log_var / 2) * noise
        return Reconstruction(self.decoder.logits(latents), z_mean, z_log_var)


def architecture_of(
    preset: str,
    image_size: Size,
    latent_dim: int,
    encoder_filters: tuple[int, ...] | None = None,
    decoder_filters: tuple[int, ...] | None = None,
) -> Architecture:
    """A preset's architecture, with its own filters where none are given."""
    usual = PRESETS[preset]
    return Architecture(
        name=preset,
        image_size=image_size,
        latent_dim=latent_dim,
        encoder_filters=tuple(encoder_filters or usual.encoder_filters),
        decoder_filters=tuple(decoder_filters or usual.decoder_filters),
    )


def build(architecture: Architecture, init_seed: int = 0) -> Vae:
    """A VAE with fresh weights that depend on `init_seed` alone.

    Raises:
        ModelError: if the preset is unknown or the shape is out of bounds.
    """
    _check(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return Vae(architecture)


def build_empty(architecture: Architecture) -> Vae:
    """A VAE without memory for its weights, on torch's `meta` device, for sizing."""
    _check(architecture)
    with torch.device("meta"):
        return Vae(architecture)


def to_json(architecture: Architecture) -> dict[str, Any]:
    """An architecture as plain data for `config.json`."""
    return {
        "name": architecture.name,
        "image_size": list(architecture.image_size),
        "latent_dim": architecture.latent_dim,
        "encoder_filters": list(architecture.encoder_filters),
        "decoder_filters": list(architecture.decoder_filters),
    }


def from_json(data: Mapping[str, Any]) -> Architecture:
    """The inverse of `to_json`.

    Raises:
        ModelError: if a field is missing, of a wrong type, or out of bounds.
    """
    try:
        width, height = (_whole(side, 16384) for side in data["image_size"])
        architecture = Architecture(
            name=str(data["name"]),
            image_size=(width, height),
            latent_dim=_whole(data["latent_dim"], 65536),
            encoder_filters=tuple(_whole(count, 4096) for count in data["encoder_filters"]),
            decoder_filters=tuple(_whole(count, 4096) for count in data["decoder_filters"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"its architecture is not complete ({error!r})") from error
    _check(architecture)
    return architecture


def _whole(value: Any, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise ValueError(f"{value!r:.40} is no whole number from 1 to {maximum}")
    return value


def _check(architecture: Architecture) -> None:
    if architecture.name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ModelError(f"there is no architecture {architecture.name!r:.40}; there are {known}")
    for filters in (architecture.encoder_filters, architecture.decoder_filters):
        if not 1 <= len(filters) <= MAX_LAYERS:
            raise ModelError(f"an architecture has 1 to {MAX_LAYERS} levels, not {len(filters)}")
