"""librosa's beat tracker (Ellis 2007), compiled once on a machine and not once in each process.

numba keeps what it has compiled for processes that come later, but for one function that librosa
(0.11) tells it not to keep: two seconds for every render that hears a track. Whoever needs the
tracker imports it from here, and where it is used, since even what is kept takes a second to load.
"""

from typing import Any

import numba

_compile = numba.guvectorize


def _compile_and_keep(*types: Any, **options: Any) -> Any:
    return _compile(*types, **{**options, "cache": True})


numba.guvectorize = _compile_and_keep
try:
    from librosa.beat import beat_track
finally:
    numba.guvectorize = _compile

__all__ = ["beat_track"]
