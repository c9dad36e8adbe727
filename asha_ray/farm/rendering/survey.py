"""What the machine that renders is: asked once for each render, where its workers will be."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from asha_ray.errors import ResourceError
from asha_ray.video import codecs


@dataclass(frozen=True)
class Survey:
    """What a render must know of its workers' machines.

    Attributes:
        kind: of the device that decodes, see `device_kind`.
        torch_version: build of torch.
        failures: hardware encoder -> why it does not work there; those that do are not in it.
        free_bytes: of memory.
    """

    kind: str
    torch_version: str
    failures: Mapping[str, str] = field(default_factory=dict)
    free_bytes: float = float("inf")


def survey(device: str = "auto", codec: str = "libx264") -> Survey:
    """Look at this machine.

    Args:
        device: `cpu`, `cuda`, `mps`, or `auto` for the best.
        codec: what was asked for; hardware encoders are tried where it or `auto` is one.

    Raises:
        ResourceError: if this machine has no such device.
    """
    import torch

    from asha_ray.vae.generator import pick_device
    from asha_ray.vae.memory import available_bytes
    from asha_ray.vae.numerics import device_kind

    if device == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            f"rendering on a GPU: {platform.node()} was to have one, but torch "
            f"{torch.__version__} finds no CUDA device there; install a CUDA build of torch and "
            "the GPU's driver, start its Ray with --num-gpus=0, or render with --device cpu"
        )
    asked = codecs.NVENC if codec == "auto" else (codec,) if codec in codecs.NVENC else ()
    found = {name: codecs.failure(name) for name in asked}
    return Survey(
        device_kind(pick_device(device)),
        torch.__version__,
        {name: reason for name, reason in found.items() if reason},
        available_bytes(),
    )


def choose_codec(asked: str, found: Survey) -> tuple[str, str]:
    """The encoder for `--codec`, and why it is that one where a person did not say."""
    if asked != "auto":
        return asked, ""
    hardware = "h264_nvenc"
    if hardware not in found.failures:
        return hardware, f"encoding with {hardware}: this GPU has an encoder of its own"
    return "libx264", f"encoding with libx264 on the CPU: {found.failures[hardware]}"
