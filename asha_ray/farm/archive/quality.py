"""What the check of a show's video found, as its record keeps it, read without trust."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_LEVEL = 1e6
"""In dB; more is no level."""


@dataclass(frozen=True)
class Found:
    """What the check found, added up.

    Attributes:
        decoded_frames: that could be decoded; None where nobody counted.
        black_s: seconds in which the picture is black; None where nobody looked, as of the next.
        frozen_s: in which it does not move.
        silent_s: in which nothing is heard.
        true_peak_dbfs: of the sound; None where it was not measured.
        problems: what a person should look at, a sentence each.
    """

    decoded_frames: int | None
    black_s: float | None
    frozen_s: float | None
    silent_s: float | None
    true_peak_dbfs: float | None
    problems: tuple[str, ...]


def found_in(quality: Mapping[str, Any]) -> Found:
    """What a record's `quality` says; whatever is missing or no such thing counts as not known."""
    decoded, problems = quality.get("decoded"), quality.get("problems")
    return Found(
        decoded_frames=decoded if isinstance(decoded, int) and 0 <= decoded < 2**63 else None,
        black_s=_total_s(quality.get("black")),
        frozen_s=_total_s(quality.get("frozen")),
        silent_s=_total_s(quality.get("silent")),
        true_peak_dbfs=_level(quality.get("true_peak_dbfs")),
        problems=tuple(map(str, problems)) if isinstance(problems, list | tuple) else (),
    )


def _level(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= MAX_LEVEL else None


def _total_s(spans: Any) -> float | None:
    if not isinstance(spans, list | tuple):
        return None
    try:
        return float(sum(float(stop) - float(start) for start, stop in spans))
    except (TypeError, ValueError, OverflowError):
        return None
