"""What a job is made of, brought to where a cluster sees it: once, by a hash of its content."""

import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asha_ray.errors import SpecError
from asha_ray.farm.places import with_places
from asha_ray.farm.training.dataset import list_images
from asha_ray.progress import Progress
from asha_ray.spec import JobSpec, RenderSpec, TrainSpec
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_below, is_s3
from asha_ray.storage.keys import digest_of, file_digest
from asha_ray.vae.model_dir import CONFIG, FILES

UPLOADS_AT_ONCE = 8
YOUNG_S = 7 * 86400.0
"""What is older is sent again: a bucket may let it go after a month, under a job that needs it."""
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class Inputs:
    """Local files of jobs, in a work root that a cluster sees.

    Args:
        work: the work root.
        progress: hears of each file that goes there.
    """

    def __init__(self, work: str, progress: Progress) -> None:
        self._root, self._progress = join(work, "inputs"), progress
        self._storage = storage_of(work)

    def place(self, spec: JobSpec) -> JobSpec:
        """A spec whose local inputs lie in the work root.

        Raises:
            StorageError: if one cannot be read or stored.
        """
        if isinstance(spec, TrainSpec):
            images = [] if is_s3(spec.images) else list_images(spec.images)
            names = [Path(image).relative_to(spec.images).as_posix() for image in images]
            return spec.model_copy(update={"images": self._folder(spec.images, names)})
        motion, features = spec.motion, spec.features
        if motion.keyframes:
            motion = motion.model_copy(update={"keyframes": self._file(motion.keyframes)})
        if features.model_dir:
            place = self._folder(features.model_dir, _files_in(features.model_dir))
            features = features.model_copy(update={"model_dir": place})
        own: dict[str, Any] = {}
        if isinstance(spec, RenderSpec):
            own["audio"] = self._file(spec.audio)
        else:
            own["rules"] = tuple(with_places(rule, self._any) for rule in spec.rules)
        placed = {"model": self._model(spec.model), "motion": motion, "features": features}
        return spec.model_copy(update={**own, **placed})

    def _model(self, uri: str) -> str:
        # Its config last: without it a directory is no model yet.
        return self._folder(uri, sorted(FILES, key=lambda name: name == CONFIG))

    def _any(self, uri: str) -> str:
        """A file, or a folder of a rule's: a model, or what a separator is made of."""
        if is_s3(uri) or Path(uri).is_file():
            return self._file(uri)
        if (Path(uri) / CONFIG).is_file():
            return self._model(uri)
        return self._folder(uri, _files_in(uri))

    def _file(self, uri: str) -> str:
        if is_s3(uri):
            return uri
        path = Path(uri)
        suffix = path.suffix if SUFFIX.fullmatch(path.suffix) else ""
        folder = join(self._root, file_digest(path))
        self._progress.stage("sending", 1, "files")
        self._send(path, join(folder, f"file{suffix}"), self._there(folder))
        return join(folder, f"file{suffix}")

    def _folder(self, uri: str, names: Iterable[str]) -> str:
        """Send files of a folder, the last one last."""
        if is_s3(uri):
            return uri
        folder = Path(uri)
        digests = {name: file_digest(folder / name) for name in names}
        if not digests:
            raise SpecError(f"sending {uri}: it is empty; give a folder that has files")
        strange = [name for name in digests if not is_below(name)]
        if strange:
            raise SpecError(
                f"sending {uri}: a bucket takes no file of the name {strange[0]!r}; rename it"
            )
        place = join(self._root, digest_of(digests))
        self._progress.stage("sending", len(digests), "files")
        *first, last = digests
        there = self._there(place)
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="asha-send") as threads:
            list(
                threads.map(lambda name: self._send(folder / name, join(place, name), there), first)
            )
        self._send(folder / last, join(place, last), there)
        return place

    def _there(self, folder: str) -> dict[str, int]:
        """Files that need not be sent, and their sizes."""
        since = time.time() - YOUNG_S
        entries = self._storage.list(folder)
        return {entry.uri: entry.num_bytes for entry in entries if entry.modified_s > since}

    def _send(self, path: Path, uri: str, there: Mapping[str, int]) -> None:
        # Its name says its content, and it appears whole: what is there is right.
        if there.get(uri) != path.stat().st_size:
            self._storage.upload(path, uri)
        self._progress.advance()


def _files_in(uri: str) -> list[str]:
    folder = Path(uri)
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
