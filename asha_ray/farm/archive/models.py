"""The models of an archive: each read once, with how its pictures are computed."""

import threading
from dataclasses import dataclass, replace

from asha_ray.farm.models import load_files
from asha_ray.progress import Progress
from asha_ray.spec import ArchiveSpec
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import Numerics


@dataclass(frozen=True)
class Chosen:
    """A model, and how it is decoded."""

    files: ModelFiles
    numerics: Numerics


class Models:
    """Models by uri; may be asked from several threads.

    Args:
        kind: of device that decodes.
        progress: hears how.
    """

    def __init__(self, kind: str, progress: Progress) -> None:
        self._kind, self._progress = kind, progress
        self._known: dict[str, Chosen] = {}
        self._lock = threading.Lock()

    def get(self, uri: str) -> Chosen:
        """A model.

        Raises:
            ModelError: if it is missing, damaged or newer than this version.
        """
        from asha_ray.farm.rendering.numerics import choose

        with self._lock:
            if uri not in self._known:
                files = load_files(uri, decoder_only=True)
                numerics, why = choose(self._kind, files, files.keyframes)
                self._progress.note(why)
                # Its weights have said what they had to; workers load their own.
                self._known[uri] = Chosen(replace(files, state={}), numerics)
            return self._known[uri]


def models_of(spec: ArchiveSpec) -> tuple[str, ...]:
    """The models that an archive names; sidecars may name others."""
    return tuple(dict.fromkeys([spec.model, *(rule.model for rule in spec.rules if rule.model)]))
