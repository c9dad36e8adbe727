"""Where results go and where work is kept meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from asha_ray.errors import SpecError, StorageError
from asha_ray.scratch import scratch_folder
from asha_ray.spec import (
    MAX_SPEC_BYTES,
    ArchiveSpec,
    FeatureSettings,
    MotionSettings,
    RenderSpec,
    RunSettings,
    ShowRule,
    TrainSpec,
    parse_yaml,
)
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


Spec = TypeVar("Spec", RenderSpec, TrainSpec, ArchiveSpec, RenderSpec | TrainSpec | ArchiveSpec)
Settings = TypeVar("Settings", MotionSettings, FeatureSettings, RunSettings)


def absolute_paths(spec: Spec) -> Spec:
    """A spec whose local paths mean the same wherever it is worked on."""
    if isinstance(spec, TrainSpec):
        return spec.model_copy(update=_absolute(spec, "images", "output"))
    groups = {
        "motion": _absolute_in(spec.motion, "keyframes"),
        "features": _absolute_in(spec.features, "model_dir"),
        "run": _absolute_in(spec.run, "work"),
    }
    if isinstance(spec, RenderSpec):
        return spec.model_copy(update={**_absolute(spec, "audio", "model", "output"), **groups})
    places = _absolute(spec, "source", "model", "output")
    rules = tuple(with_places(rule, absolute) for rule in spec.rules)
    return spec.model_copy(update={**places, **groups, "rules": rules})


def _absolute(settings: BaseModel, *names: str) -> dict[str, str]:
    given = {name: getattr(settings, name) for name in names}
    return {name: absolute(uri) for name, uri in given.items() if uri}


def _absolute_in(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update=_absolute(settings, name))


def with_places(rule: ShowRule, place: Callable[[str], str]) -> ShowRule:
    """A rule of an archive, each path in it replaced."""
    changed: dict[str, Any] = {}
    if rule.model:
        changed["model"] = place(rule.model)
    for group, name in (("motion", "keyframes"), ("features", "model_dir")):
        fields = getattr(rule, group)
        if isinstance(fields.get(name), str):
            changed[group] = {**fields, name: place(fields[name])}
    return rule.model_copy(update=changed)


def read_settings(uri: str, what: str, remedy: str) -> dict[str, Any]:
    """A small YAML file that somebody wrote, as plain data.

    Args:
        uri: of it.
        what: what it is called in an error.
        remedy: what to do where it is too large.

    Raises:
        NotFoundError: if there is none.
        SpecError: if it is too large for settings, no text, or no YAML.
    """
    storage = storage_of(uri)
    if (storage.size(uri) or 0) > MAX_SPEC_BYTES:
        raise SpecError(f"reading {what} {uri}: it is too large for one; {remedy}")
    try:
        text = storage.read(uri).decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"reading {what} {uri}: it is no text file; write it as YAML") from error
    return parse_yaml(text, uri)


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
