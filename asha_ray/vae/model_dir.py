"""The model directory: `config.json`, `model.safetensors`, `keyframes.npy`.

Nothing in it is ever unpickled, and everything is checked before use: a directory may come from
anyone, and may have been edited by hand.
"""

import hashlib
import json
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from asha_ray.errors import ModelError
from asha_ray.values import FloatArray

if TYPE_CHECKING:
    import torch

    from asha_ray.vae.architecture import Architecture, Vae

VERSION = 1
CONFIG, WEIGHTS, KEYFRAMES = "config.json", "model.safetensors", "keyframes.npy"
FILES = (CONFIG, WEIGHTS, KEYFRAMES)
MAX_CONFIG_BYTES = 4 << 20
MAX_HEADER_BYTES = 4 << 20
"""Of the weights: names and shapes, 10 kB in all presets; safetensors would parse 100 MB."""
MAX_REASON_CHARS = 200
DECODER = "decoder."


@dataclass(frozen=True)
class ModelFiles:
    """A model directory's content.

    Attributes:
        architecture: the shape.
        state: tensors by name, `encoder.*` (unless only the decoder was asked for) and `decoder.*`.
        keyframes: `[num_keyframes, L]` float32, the training images' latents in file order.
        training: a summary of how it was learned.
        digest: sha256 over architecture and decoder: what decides the pictures.
    """

    architecture: "Architecture"
    state: "dict[str, torch.Tensor]"
    keyframes: FloatArray
    training: Mapping[str, Any]
    digest: str


def write_model(
    folder: Path, vae: "Vae", keyframes: FloatArray, training: Mapping[str, Any]
) -> None:
    """Write a model directory's files into a local folder that exists."""
    from safetensors.torch import save_file

    from asha_ray.vae.architecture import to_json

    config = {
        "format": "asha-ray model",
        "version": VERSION,
        "generator": "vae",
        "architecture": to_json(vae.architecture),
        "training": dict(training),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in vae.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    np.save(folder / KEYFRAMES, keyframes.astype(np.float32), allow_pickle=False)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_config(folder: Path, name: str | None = None) -> "tuple[Architecture, dict[str, Any]]":
    """The architecture and training summary of a model directory.

    Raises:
        ModelError: if it is missing, damaged or newer than this version.
    """
    from asha_ray.vae.architecture import from_json

    what = name or str(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"reading model {what}: {CONFIG} is missing; give a folder that `asha-ray train` wrote"
        )
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("the file is too large")
        config = json.loads(path.read_text())
        version = config["version"]
        if not isinstance(version, int):
            raise ValueError(f"its version is {version!r:.40}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"reading model {what}: {CONFIG} is damaged ({_reason(error)}); train the model again"
        ) from error
    if version > VERSION:
        raise ModelError(
            f"reading model {what}: its version {version!r:.40} is newer than {VERSION}, "
            "which this asha-ray knows; update asha-ray"
        )
    try:
        architecture = from_json(config.get("architecture") or {})
    except ModelError as error:
        raise ModelError(
            f"reading model {what}: {error}; train the model again or restore {CONFIG}"
        ) from error
    training = config.get("training")
    return architecture, training if isinstance(training, dict) else {}


def read_model(folder: Path, name: str | None = None, *, decoder_only: bool = False) -> ModelFiles:
    """Read a local model directory.

    Args:
        folder: the directory.
        name: what errors call it.
        decoder_only: leave the encoder's tensors where they are; in the article's architecture
            they are 99 parts of 100, and rendering needs none.

    Raises:
        ModelError: if a part is missing, damaged or newer than this version.
    """
    what = name or str(folder)
    architecture, training = read_config(folder, what)
    for part in (WEIGHTS, KEYFRAMES):
        if not (folder / part).is_file():
            raise ModelError(
                f"reading model {what}: {part} is missing; copy the whole directory again, "
                "or train the model again"
            )
    state = _read_weights(
        folder / WEIGHTS, architecture, what, prefix=DECODER if decoder_only else ""
    )
    keyframes = read_keyframes(folder / KEYFRAMES, architecture.latent_dim, what)
    return ModelFiles(architecture, state, keyframes, training, _digest(state, architecture))


def read_keyframes(path: Path, latent_dim: int, what: str) -> FloatArray:
    """Read keyframes `[num_keyframes, L]` from a local `.npy` file.

    Raises:
        ModelError: if it is no such array, does not fit the model, or holds NaN.
    """
    try:
        # Memory-mapped, so that a header cannot claim more memory than the file has bytes; of
        # items without bytes, such as empty texts, it could.
        mapped = np.lib.format.open_memmap(path, mode="r")
        if mapped.dtype.kind not in "biuf":
            raise ValueError(f"it holds {str(mapped.dtype)[:40]}, not numbers")
        keyframes = np.array(mapped, np.float32)
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        OverflowError,
        SyntaxError,
        RecursionError,
        MemoryError,  # what Python's parser says to a header that is nested too deep
        tokenize.TokenError,
    ) as error:
        raise ModelError(
            f"reading keyframes of {what}: {path.name} is damaged ({_reason(error)}); "
            "write it again"
        ) from error
    if keyframes.ndim != 2 or keyframes.shape[1] != latent_dim:
        raise ModelError(
            f"reading keyframes of {what}: {path.name} has shape {list(keyframes.shape)!s:.40}, "
            f"but the model needs [number, {latent_dim}]; write it again"
        )
    if not np.isfinite(keyframes).all():
        raise ModelError(
            f"reading keyframes of {what}: {path.name} holds NaN or infinite values; write it again"
        )
    return keyframes


def _read_weights(
    path: Path, architecture: "Architecture", what: str, prefix: str
) -> "dict[str, torch.Tensor]":
    """All tensors whose names begin with `prefix`; the shapes of all are checked."""
    import torch

    from asha_ray.vae.architecture import build_empty

    expected = {
        name: list(tensor.shape) for name, tensor in build_empty(architecture).state_dict().items()
    }
    try:
        with path.open("rb") as plain:
            if int.from_bytes(plain.read(8), "little") > MAX_HEADER_BYTES:
                raise ValueError("its header is too large")
        with safe_open(path, "pt") as file:
            found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_shapes(found, expected, path, what)
            state = {name: file.get_tensor(name) for name in found if name.startswith(prefix)}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"reading model {what}: {path.name} is damaged ({_reason(error)}); copy or train it "
            "again"
        ) from error
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise ModelError(
            f"reading model {what}: {path.name} holds weights of a dtype that is not floating "
            "point; copy or train it again"
        )
    # Weights kept in half precision are computed with in the precision that is asked for.
    state = {name: tensor.float() for name, tensor in state.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise ModelError(
            f"reading model {what}: {path.name} holds NaN or infinite weights; train it again with "
            "a lower --learning-rate"
        )
    return state


def _check_shapes(
    found: Mapping[str, list[int]], expected: Mapping[str, list[int]], path: Path, what: str
) -> None:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, got = (shapes.get(name) or "none" for shapes in (expected, found))
            raise ModelError(
                f"reading model {what}: {path.name} does not fit {CONFIG}: tensor {name[:80]} has "
                f"shape {got!s:.40}, not {wanted}; restore the two from one training"
            )


def _reason(error: Exception) -> str:
    return str(error)[:MAX_REASON_CHARS] or "its header is none"


def _digest(state: "Mapping[str, torch.Tensor]", architecture: "Architecture") -> str:
    from asha_ray.vae.architecture import to_json

    digest = hashlib.sha256(json.dumps(to_json(architecture), sort_keys=True).encode())
    for name in sorted(state):
        if name.startswith(DECODER):
            digest.update(f"{name}:".encode())
            digest.update(state[name].contiguous().numpy().data)
    return digest.hexdigest()
