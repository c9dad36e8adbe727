"""What a command answers on stdout: a text for people, or one JSON document."""

import json
import sys
from fractions import Fraction
from typing import Any

from asha_ray.cli.progress import UNSHOWABLE, shown


def answer(document: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Write a document, or what it says to a person."""
    if as_json:
        written = json.dumps(document, default=_plain, ensure_ascii=False)
        # The same characters to whoever reads the JSON.
        written = UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
        sys.stdout.write(f"{written}\n")
    else:
        sys.stdout.write(f"{shown(text)}\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)
