"""How much memory a model needs, found without allocating it."""

from pathlib import Path

import psutil
import torch
from torch import Tensor

from asha_ray.vae.architecture import Architecture, build_empty
from asha_ray.vae.training import vae_loss

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
BYTES_PER_WEIGHT = {"decode": 4, "train": 16}
"""float32 weights; in training also their gradients and Adam's two moments."""


def decode_bytes(architecture: Architecture, batch_size: int) -> int:
    """Memory for decoding `batch_size` pictures at a time in float32, in bytes.

    Every map grows with the area of the grid that the decoder starts from, so a grid of one place
    tells all; on the `meta` device, torch would first import its compiler for two seconds.
    """
    decoder = build_empty(architecture).decoder
    weights = sum(weight.numel() for weight in decoder.parameters())
    channels, height, width = decoder.grid
    sizes: list[int] = []
    layers = decoder.layers
    zeros = {name: torch.zeros(weight.shape) for name, weight in layers.state_dict().items()}
    layers.load_state_dict(zeros, assign=True)
    for module in layers.modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _module, args, output: sizes.append(_num_bytes(args[0]) + _num_bytes(output))
            )
    with torch.inference_mode():
        layers(torch.zeros(1, channels, 1, 1))
    largest = max(sizes, default=0) * height * width * batch_size
    return int(BYTES_PER_WEIGHT["decode"] * weights + 2 * largest)


def training_bytes(architecture: Architecture, batch_size: int) -> int:
    """Memory for one training worker with `batch_size` pictures a step, in bytes."""
    vae = build_empty(architecture)
    weights = {id(weight) for weight in vae.parameters()}
    saved: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            saved[id(tensor)] = tensor
        return tensor

    width, height = architecture.image_size
    images = torch.empty(batch_size, 3, height, width, device="meta")
    noise = torch.empty(batch_size, architecture.latent_dim, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        vae_loss(images, vae(images, noise))
    kept = [_num_bytes(tensor) for tensor in saved.values()]
    num_weights = sum(weight.numel() for weight in vae.parameters())
    # While going backwards, gradients of the two largest maps live beside what was kept.
    return BYTES_PER_WEIGHT["train"] * num_weights + sum(kept) + 2 * max(kept, default=0)


def available_bytes() -> int:
    """Memory that this machine can still give, in bytes; a container's limit counts."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int(CGROUP_LIMIT.read_text())
    except (OSError, ValueError):
        return available
    return min(available, limit)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
