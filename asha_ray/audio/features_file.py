"""The features file: a plain `.npz` of named arrays, no pickled objects.

Keys: `version`, `fps` (numerator, denominator), `duration_s`, `onset_info [n, 3]`,
`onset_strength [n]`, `beat_frames [k]`, `beat_times [k]`, `tempo`, `decay_linear [n]`,
`decay_exponential [n]`, `rms [n]`, `bands [n, 3]`; and, where they were measured, `chroma [n, 12]`,
`centroid [n]`, `section_times [a]`, `track_times [b]`, `speech [s]`, `silence [s]`. Where stems
were listened to, the same keys again under `<stem>/`.
"""

import lzma
import tokenize
import zipfile
import zlib
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from asha_ray.errors import FeaturesError
from asha_ray.values import Features

VERSION = 1
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    ArithmeticError,
    RuntimeError,  # of a member that is encrypted, or packed in a way that zipfile does not know
    MemoryError,  # of an array's header that is nested too deep
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
MAX_ARRAYS = 1000
MAX_VALUES = 1 << 30
"""In all arrays together; a day at 60 frames a second with five stems has 700 million."""
MAX_DURATION_S = 1e6
MAX_FPS = 1000
CURVES = ("onset_strength", "decay_linear", "decay_exponential", "rms")
LATER = {
    "chroma": np.float32,
    "centroid": np.float32,
    "section_times": np.float64,
    "track_times": np.float64,
    "speech": np.bool_,
    "silence": np.bool_,
}
"""Keys that files written before they were known do not have."""


def write_features(features: Features, path: Path) -> None:
    """Write a features file to a local path."""
    # As np.savez_compressed, which wants all arrays at once.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _write_array(archive, "version", np.int64(VERSION))
        for prefix, part in [("", features), *((f"{s}/", p) for s, p in features.stems.items())]:
            for name, array in _arrays(part).items():
                _write_array(archive, f"{prefix}{name}", array)


def _write_array(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_features(path: Path, name: str | None = None) -> Features:
    """Read a features file from a local path; `name` is what errors call it.

    Raises:
        FeaturesError: if it is no features file, or one of a newer version.
    """
    what = name or str(path)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            _check_sizes(file.zip)
            version = int(file["version"])
            if version > VERSION:
                raise FeaturesError(
                    f"reading features {what}: its version {version} is newer than {VERSION}, "
                    "which this asha-ray knows; update asha-ray"
                )
            features = _features(file, "")
            stems = dict.fromkeys(key.partition("/")[0] for key in file if "/" in key)
            if not all(stem.isascii() and stem.isalpha() for stem in stems):
                raise ValueError("a stem's name is a word")
            parts = {stem: _features(file, f"{stem}/") for stem in stems}
    except UNREADABLE as error:
        raise FeaturesError(
            f"reading features {what}: it is no features file "
            f"({str(error)[:200] or 'a header in it is none'}); "
            "write one with `asha-ray analyze`"
        ) from error
    _check(features, what)
    for part in parts.values():
        _check(part, what, like=features)
    return replace(features, stems=parts)


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse what would fill the memory, before any of it is unpacked."""
    members = archive.infolist()
    if len(members) > MAX_ARRAYS:
        raise ValueError(f"it has more than {MAX_ARRAYS} arrays")
    num_values = 0
    for member in members:
        with archive.open(member) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("an array has a header of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            num_bytes = member.file_size - file.tell()
        # zipfile unpacks no more than a member's size; an array may claim another one.
        if dtype.kind not in "biuf" or prod(shape) * dtype.itemsize != num_bytes:
            raise ValueError("an array is not what its header says")
        num_values += prod(shape)
    if num_values > MAX_VALUES:
        raise ValueError("it unpacks to more than features can be")


def _arrays(features: Features) -> dict[str, Any]:
    return {
        "fps": np.array([features.fps.numerator, features.fps.denominator], np.int64),
        "duration_s": np.float64(features.duration_s),
        "onset_info": features.onset_info,
        "beat_frames": features.beat_frames,
        "beat_times": features.beat_times,
        "tempo": np.float64(features.tempo),
        "bands": features.bands,
        **{name: getattr(features, name) for name in (*CURVES, *LATER)},
    }


def _features(file: Any, prefix: str) -> Features:
    numerator, denominator = (int(part) for part in file[f"{prefix}fps"])
    return Features(
        fps=Fraction(numerator, denominator),
        duration_s=float(file[f"{prefix}duration_s"]),
        beat_frames=file[f"{prefix}beat_frames"].astype(np.int64),
        beat_times=file[f"{prefix}beat_times"].astype(np.float64),
        tempo=float(file[f"{prefix}tempo"]),
        bands=file[f"{prefix}bands"].astype(np.float32, copy=False),
        **{curve: file[f"{prefix}{curve}"].astype(np.float32, copy=False) for curve in CURVES},
        **{
            key: file[f"{prefix}{key}"].astype(kind, copy=False)
            for key, kind in LATER.items()
            if f"{prefix}{key}" in file
        },
    )


def _check(features: Features, what: str, like: Features | None = None) -> None:
    num_frames = features.num_frames
    curves = [getattr(features, curve) for curve in CURVES]
    beats = features.beat_frames
    if (
        num_frames == 0
        or not 0 < features.fps <= MAX_FPS
        or not 0 < features.duration_s <= MAX_DURATION_S
        or not np.isfinite(features.tempo)
        or (like is not None and (like.num_frames, like.fps) != (num_frames, features.fps))
        or any(curve.shape != (num_frames,) for curve in curves)
        or features.bands.shape != (num_frames, 3)
        or not _fit_if_measured(features)
        or not all(np.isfinite(curve).all() for curve in (*curves, features.bands))
        or beats.ndim != 1
        or features.beat_times.shape != beats.shape
        or not np.isfinite(features.beat_times).all()
        or (len(beats) > 0 and (beats.min() < 0 or beats.max() >= num_frames))
    ):
        raise FeaturesError(
            f"reading features {what}: its arrays do not fit each other; "
            "write it again with `asha-ray analyze`"
        )


def _fit_if_measured(features: Features) -> bool:
    num_frames = features.num_frames
    times = (features.section_times, features.track_times)
    return (
        features.chroma.shape in {(0, 12), (num_frames, 12)}
        and features.centroid.shape in {(0,), (num_frames,)}
        and all(curve.ndim == 1 for curve in (*times, features.speech))
        and features.speech.shape == features.silence.shape
        and all(np.isfinite(curve).all() for curve in (features.chroma, features.centroid, *times))
    )
