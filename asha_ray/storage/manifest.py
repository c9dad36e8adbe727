"""A render's manifest as a file: plain JSON, versioned, and not trusted when it is read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

from pydantic import TypeAdapter, ValidationError

from asha_ray.errors import ManifestError
from asha_ray.values import Chunk, EncoderSettings, Manifest, Numerics

VERSION = 1
MAX_BYTES = 256 << 20
"""A chunk takes about 70 bytes: this is a table of more than three million."""
MAX_FRAMES = 10**9

_CODEC = TypeAdapter(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as the content of a file."""
    return (json.dumps(to_plain(manifest), indent=1) + "\n").encode()


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """A manifest as plain data."""
    return {
        "version": VERSION,
        "render_id": manifest.render_id,
        "spec": manifest.spec,
        "digests": manifest.digests,
        "fps": str(manifest.fps),
        "size": list(manifest.size),
        "numerics": asdict(manifest.numerics),
        "encoder": asdict(manifest.encoder),
        "start": manifest.start,
        "frames": manifest.num_frames,
        "duration_s": str(manifest.duration_s),
        "chunks": [[chunk.start, chunk.stop, chunk.chunk_id] for chunk in manifest.chunks],
    }


def decode_manifest(content: bytes, source: str) -> Manifest:
    """Read a manifest that may be anybody's.

    Args:
        content: of the file.
        source: what to call it in an error.

    Raises:
        ManifestError: if it is damaged, or of a version that is not known here.
    """
    if len(content) > MAX_BYTES:
        raise ManifestError(f"reading manifest {source}: it has {len(content)} bytes, too many")
    try:
        data = json.loads(content)
        version = data["version"]
        if version != VERSION:
            raise ManifestError(
                f"reading manifest {source}: it is of version {str(version)[:20]}, and this "
                f"asha-ray knows version {VERSION}; use the asha-ray that wrote it, or a newer one"
            )
        manifest = _from_plain(data)
        _check(manifest)
    except ManifestError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ManifestError(
            f"reading manifest {source}: it is damaged ({brief(error)}); render again to write it "
            "anew"
        ) from error
    return manifest


def _from_plain(data: Mapping[str, Any]) -> Manifest:
    fields = {key: data[key] for key in ("render_id", "spec", "digests", "start", "size")}
    manifest = _CODEC.validate_python(
        {
            **fields,
            "fps": Fraction(_short(data["fps"])),
            "duration_s": Fraction(_short(data["duration_s"])),
            "numerics": _known(Numerics, data["numerics"]),
            "encoder": _known(EncoderSettings, data["encoder"]),
            "num_frames": data["frames"],
        }
    )
    chunks = [
        Chunk(index, int(start), int(stop), str(chunk_id))
        for index, (start, stop, chunk_id) in enumerate(data["chunks"])
    ]
    return replace(manifest, chunks=tuple(chunks))


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of which each means something here: one that does not might have changed a frame."""
    return asdict(kind(**data))


def _check(manifest: Manifest) -> None:
    """Every frame lies in exactly one chunk, and names are such as we give."""
    if not 0 < manifest.num_frames <= MAX_FRAMES or manifest.start < 0 or manifest.fps <= 0:
        raise ValueError("its range of frames is none")
    expected = manifest.start
    for chunk in manifest.chunks:
        if chunk.start != expected or not chunk.start < chunk.stop:
            raise ValueError(f"chunk {chunk.index} does not begin at frame {expected}")
        expected = chunk.stop
        _require_hash(chunk.chunk_id)
    if expected != manifest.start + manifest.num_frames:
        raise ValueError(f"its chunks end at frame {expected}")
    _require_hash(manifest.render_id)


def _require_hash(name: str) -> None:
    # It becomes a part of a path.
    if not (0 < len(name) <= 64 and name.isascii() and name.isalnum()):
        raise ValueError(f"{name[:40]!r} is no hash")


def _short(value: Any) -> str:
    text = str(value)
    if len(text) > 64 or "e" in text.lower():  # no exponent: its digits would fill the memory
        raise ValueError("a number is too long")
    return text


def brief(error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]
