"""How a render's decoders compute: chosen once, checked against float32, and held to everywhere."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asha_ray.errors import FarmError, SpecError
from asha_ray.vae.generator import VaeGenerator, pick_device
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.numerics import (
    COMPILE_MODES,
    DTYPES,
    MAX_BATCH,
    MAX_THREADS,
    Row,
    describe,
    device_kind,
    exact,
    numerics_of,
)
from asha_ray.values import FloatArray, Numerics

TABLE_VERSION = 1
MAX_TABLE_BYTES = 1 << 20
MIN_PSNR_DB = 45.0
GUARD_FRAMES = 4


def table_path() -> Path:
    """Where this user's own rows are, as `asha-ray bench --tune` writes them."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "asha-ray" / "numerics.json"


def read_table(path: Path | None = None) -> dict[str, Row]:
    """This user's rows by kind of device; none where there is no file.

    Raises:
        SpecError: if the file is damaged or newer than this version.
    """
    path = path or table_path()
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError("it is too large")
        data = json.loads(path.read_text())
        if data["version"] != TABLE_VERSION:
            raise ValueError(f"its version is {data['version']!r:.40}, not {TABLE_VERSION}")
        return {str(kind): _row(fields) for kind, fields in data["numerics"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpecError(
            f"reading numerics {path}: {str(error)[:200]}; delete the file, or write it anew with "
            "`asha-ray bench --tune`"
        ) from error


def write_table(rows: Mapping[str, Row], path: Path | None = None) -> Path:
    """Replace this user's rows; the file appears whole."""
    path = path or table_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"version": TABLE_VERSION, "numerics": {kind: asdict(row) for kind, row in rows.items()}}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(data, file, indent=1, sort_keys=True)
    Path(file.name).replace(path)
    return path


def _row(fields: Mapping[str, Any]) -> Row:
    row = Row(**fields)
    checks = {
        "dtype": row.dtype in DTYPES,
        "channels_last": isinstance(row.channels_last, bool),
        "batch_size": _is_whole(row.batch_size, 1, MAX_BATCH),
        "threads": _is_whole(row.threads, 0, MAX_THREADS),
        "compile": row.compile in COMPILE_MODES,
    }
    wrong = [f"{name} is {getattr(row, name)!r:.40}" for name, right in checks.items() if not right]
    if wrong:
        raise ValueError(", ".join(wrong))
    return row


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def choose(kind: str, files: ModelFiles, keyframes: FloatArray) -> tuple[Numerics, str]:
    """How a render on a kind of device decodes a model, and why, in words for people.

    The driver alone calls it, once for each render, so that all workers and later runs agree.

    Args:
        kind: see `device_kind`.
        files: the model.
        keyframes: `[n, L]`; a few of them are decoded in both precisions.

    Raises:
        SpecError: if the user's own table is damaged.
    """
    numerics = numerics_of(kind, read_table())
    if numerics.dtype == "float32":
        return numerics, f"decoding in {describe(numerics)}"
    quality = psnr_db(files, numerics, keyframes)
    if quality >= MIN_PSNR_DB:
        return numerics, f"decoding in {describe(numerics)} ({quality:.0f} dB against float32)"
    return exact(numerics), (
        f"decoding in {describe(exact(numerics))}: {numerics.dtype} would change this model's "
        f"pictures ({quality:.1f} dB PSNR, {MIN_PSNR_DB:.0f} are needed)"
    )


def psnr_db(files: ModelFiles, numerics: Numerics, keyframes: FloatArray) -> float:
    """How near reduced precision comes to float32 on a few of a model's pictures, in dB.

    It computes on the device of `numerics` where this machine has one, else on its CPU: what is
    asked is what the number format does to this model, and that is the same on both.
    """
    here = _here(numerics)
    latents = _sample(files.architecture.latent_dim, keyframes)
    error = 0.0
    reduced, reference = VaeGenerator(files, here), VaeGenerator(files, exact(here))
    for latent in latents:  # one at a time: two models at 4K are memory enough
        difference = reduced.decode(latent[None]) - reference.decode(latent[None])
        error += float(difference.double().square().mean()) / len(latents)
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def _here(numerics: Numerics) -> Numerics:
    here = replace(numerics, batch_size=1, compile="none")
    if numerics.device in ("cpu", pick_device()):
        return here
    return replace(here, device="cpu", kind=device_kind("cpu"))


def _sample(latent_dim: int, keyframes: FloatArray) -> FloatArray:
    """Keyframes from all over the tour, or draws of the prior where there are none."""
    if not len(keyframes):
        random = np.random.default_rng(0)
        return random.standard_normal((GUARD_FRAMES, latent_dim), dtype=np.float32)
    places = np.linspace(0, len(keyframes) - 1, min(GUARD_FRAMES, len(keyframes)))
    return np.asarray(keyframes[places.round().astype(int)], np.float32)


def refusal(numerics: Numerics, *, allow_mixed: bool) -> str:
    """Why this machine must not render what was planned with `numerics`; empty if it may."""
    if allow_mixed:
        return ""
    own = (device_kind(numerics.device), torch.__version__)
    if own == (numerics.kind, numerics.torch_version):
        return ""
    return (
        f"this worker is {own[0]} with torch {own[1]}, but the render was planned for "
        f"{numerics.kind} with torch {numerics.torch_version}: its frames could differ; use "
        "machines of one kind, or --allow-mixed"
    )


def require_same_kind(numerics: Numerics, *, allow_mixed: bool) -> None:
    """Refuse to render on a machine of another kind.

    Raises:
        FarmError: with both kinds.
    """
    reason = refusal(numerics, allow_mixed=allow_mixed)
    if reason:
        raise FarmError(f"rendering: {reason}")
