"""Hashes over everything that determines content, and nothing that does not."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asha_ray.values import EncoderSettings, FloatArray, Numerics

FORMAT_VERSION = 1
"""Raised when the same inputs would give other frames or files than before."""


def digest_of(value: Any) -> str:
    """sha256 of plain data, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_digest(array: FloatArray) -> str:
    """sha256 of an array's shape and values."""
    shape = "x".join(str(side) for side in array.shape)
    return hashlib.sha256(f"{shape}:".encode() + array.astype("<f4").tobytes()).hexdigest()


def chunk_id(
    latents: FloatArray,
    offset: int,
    num_frames: int,
    *,
    model_digest: str,
    numerics: Numerics,
    encoder: EncoderSettings,
    video: Mapping[str, Any],
) -> str:
    """What a chunk's segment is called.

    Args:
        latents: `[whole batches, L]` that are decoded.
        offset: how many of them come before the chunk's first frame.
        num_frames: how many frames are kept.
        model_digest: sha256 of the model.
        numerics: how the decoder computes.
        encoder: how frames are encoded.
        video: size, fit and fps.
    """
    return digest_of(
        {
            "format": FORMAT_VERSION,
            "latents": array_digest(latents),
            "offset": offset,
            "frames": num_frames,
            "model": model_digest,
            "numerics": asdict(numerics),
            "encoder": asdict(encoder),
            "video": dict(video),
        }
    )[:40]
