"""Where results go and where work is kept meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from asha_ray.errors import StorageError
from asha_ray.scratch import scratch_folder
from asha_ray.spec import RenderSpec, TrainSpec
from asha_ray.storage import join, parent, storage_of
from asha_ray.storage.base import is_s3, redacted


@contextmanager
def work_root(work: str | None, beside: str | None = None) -> Iterator[str]:
    """A work root: the one that is named, or `.asha` beside an output, both of which are kept.

    Where there is no output either, one that lasts as long as the context.
    """
    kept = kept_work_root(work, beside)
    if kept is not None:
        yield kept
    else:
        with scratch_folder("work") as folder:
            yield str(folder)


def kept_work_root(work: str | None, beside: str | None = None) -> str | None:
    """The work root that is named, or `.asha` beside an output; None where nothing is kept."""
    return work if work is not None or beside is None else join(parent(beside), ".asha")


def absolute(uri: str) -> str:
    """A local path made absolute, since workers run elsewhere; other uris as they are."""
    return uri if "://" in uri else str(Path(uri).absolute())


Spec = TypeVar("Spec", RenderSpec, TrainSpec, RenderSpec | TrainSpec)


def absolute_paths(spec: Spec) -> Spec:
    """A spec whose local paths mean the same wherever it is worked on."""
    if isinstance(spec, TrainSpec):
        return spec.model_copy(
            update={name: absolute(getattr(spec, name)) for name in ("images", "output")}
        )
    places = {name: absolute(getattr(spec, name)) for name in ("audio", "model", "output")}
    motion, features, run = spec.motion, spec.features, spec.run
    if motion.keyframes:
        motion = motion.model_copy(update={"keyframes": absolute(motion.keyframes)})
    if features.model_dir:
        features = features.model_copy(update={"model_dir": absolute(features.model_dir)})
    if run.work:
        run = run.model_copy(update={"work": absolute(run.work)})
    return spec.model_copy(update={**places, "motion": motion, "features": features, "run": run})


def put(uri: str, write: Callable[[Path], None]) -> None:
    """Let `write` make a local file, then put it at `uri`, whole.

    Raises:
        StorageError: if it cannot be written.
    """
    # On the output's own disk where there is one: the system's for temporary files may be small.
    place = None if is_s3(uri) else Path(absolute(uri)).parent
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        with scratch_folder("file", place) as folder:
            local = folder / "file"
            write(local)
            storage_of(uri).upload(local, uri)
    except OSError as error:
        raise StorageError(
            redacted(f"writing {uri}: {error}; free some space or check the path")
        ) from error
