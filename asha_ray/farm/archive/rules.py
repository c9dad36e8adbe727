"""Which settings a show gets: the archive's, each rule's that it fits, and its sidecar's."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from asha_ray.farm.archive.globs import fits
from asha_ray.farm.archive.scan import SIDECAR, Source
from asha_ray.farm.places import read_settings
from asha_ray.spec import (
    ArchiveSpec,
    FeatureSettings,
    MotionSettings,
    ShowRule,
    ShowSettings,
    Sidecar,
    VideoSettings,
    build,
)
from asha_ray.storage import basename, storage_of
from asha_ray.storage.keys import digest_of

COMMON = {"video", "features", "motion", "seed", "model", "names", "paths"}
"""What an archive's spec says of every show."""
TEXTS = ("show", "title", "artist", "album", "date")


@dataclass(frozen=True)
class ShowFacts:
    """What is known of a show when its settings are decided.

    Attributes:
        key: its path below the source.
        show: the series that it belongs to; empty where that is not known, as the next four.
        title: of the recording.
        artist: whose it is.
        album: what it is a part of.
        date: when it was on air.
        duration_s: of its sound; None where it is not known.
    """

    key: str
    show: str = ""
    title: str = ""
    artist: str = ""
    album: str = ""
    date: str = ""
    duration_s: float | None = None


@dataclass(frozen=True)
class ShowChoice:
    """The settings of one show.

    Attributes:
        skip: whether it gets no video.
        model: the uri of its model.
        seed: of its motion; None where nobody chose one.
        start: seconds of its sound that are left out at the beginning.
        duration: seconds of its video; None for all.
        video: how it is encoded.
        features: how its sound becomes curves.
        motion: how the curves move.
    """

    skip: bool
    model: str
    seed: int | None
    start: float
    duration: float | None
    video: VideoSettings
    features: FeatureSettings
    motion: MotionSettings


class _Groups(BaseModel):
    """The groups of a rule or a sidecar, with what they leave unsaid."""

    model_config = ConfigDict(frozen=True)

    video: VideoSettings = VideoSettings()
    features: FeatureSettings = FeatureSettings()
    motion: MotionSettings = MotionSettings()


class _AllGroups(BaseModel):
    rules: tuple[_Groups, ...]


def check_rules(spec: ArchiveSpec) -> None:
    """Make sure that every rule could be used, before anything is done.

    Raises:
        SpecError: naming every wrong field at once, as `rules.2.video.crf`.
    """
    _rule_groups(spec)


def resolve(spec: ArchiveSpec, facts: ShowFacts, sidecar: Sidecar | None) -> ShowChoice:
    """A show's settings: of all that say something of a field, the last counts.

    Raises:
        SpecError: naming the wrong fields of a rule, or of the sidecar.
    """
    layers: list[tuple[ShowSettings, _Groups]] = [
        (rule, groups)
        for rule, groups in zip(spec.rules, _rule_groups(spec), strict=True)
        if _fits(rule, facts)
    ]
    if sidecar is not None:
        groups = build(_Groups, _plain_groups(sidecar), f"sidecar {facts.key}{SIDECAR}")
        layers.append((sidecar, groups))

    def last(name: str, otherwise: Any) -> Any:
        said = (getattr(settings, name) for settings, _ in reversed(layers))
        return next((value for value in said if value is not None), otherwise)

    common = VideoSettings(**spec.video.model_dump())  # a render's own, with a render's defaults
    return ShowChoice(
        skip=last("skip", False),
        model=last("model", spec.model),
        seed=last("seed", spec.seed),
        start=last("start", 0.0),
        duration=last("duration", None),
        video=reduce(_laid_over, (groups.video for _, groups in layers), common),
        features=reduce(_laid_over, (groups.features for _, groups in layers), spec.features),
        motion=reduce(_laid_over, (groups.motion for _, groups in layers), spec.motion),
    )


def may_fit(rule: ShowRule, key: str) -> bool:
    """Whether a show of this path may fit a rule, whatever else is found of it."""
    return rule.match.path is None or fits(rule.match.path, key)


def read_sidecar(uri: str) -> Sidecar:
    """The settings beside a sound file.

    Raises:
        NotFoundError: if there are none.
        SpecError: if they are wrong; its groups are looked at by `resolve`.
    """
    data = read_settings(uri, "sidecar", "shorten or delete it")
    return build(Sidecar, data, f"sidecar {uri}")


def model_versions(spec: ArchiveSpec) -> dict[str, str]:
    """What changes when a model, or a file of keyframes, that a spec names is another; by its uri.

    Raises:
        StorageError: if one cannot be looked at.
    """
    groups = [spec.motion, *(groups.motion for groups in _rule_groups(spec))]
    models = {spec.model, *(rule.model for rule in spec.rules if rule.model)}
    keyframes = {motion.keyframes for motion in groups if motion.keyframes}
    return {
        **{uri: _model_version(uri) for uri in sorted(models)},
        **{uri: storage_of(uri).version(uri) or "" for uri in sorted(keyframes)},
    }


class SettingsDigests:
    """Digests of all that the settings of a show may come from, so far as no file is opened.

    A rule that a show cannot fit is no part of its digest, so that a changed rule touches only the
    shows that it is about. What a default becomes in a later version is none either, nor where a
    model lies.

    Args:
        spec: the archive's.
        versions: of `model_versions`.
    """

    def __init__(self, spec: ArchiveSpec, versions: Mapping[str, str]) -> None:
        self._rules, self._versions = spec.rules, versions
        self._base = self._pinned(_said(spec, include=COMMON))
        self._digests: dict[tuple[tuple[int, ...], str, str], str] = {}

    def of(self, source: Source) -> str:
        """The digest for one show; one text for all whose settings come from the same."""
        rules = enumerate(self._rules)
        maybe = tuple(index for index, rule in rules if may_fit(rule, source.key))
        where = (maybe, source.sidecar, source.cue)
        if where not in self._digests:
            self._digests[where] = digest_of(
                {
                    **self._base,
                    "rules": [self._rule(self._rules[index]) for index in maybe],
                    "sidecar": source.sidecar,
                    "cue": source.cue,
                }
            )
        return self._digests[where]

    def _rule(self, rule: ShowRule) -> dict[str, Any]:
        # That its path fits is all that a pattern of paths has to say.
        match = _said(rule.match, exclude={"path"})
        return {
            **self._pinned(_said(rule, exclude={"match"})),
            **({"match": match} if match else {}),
        }

    def _pinned(self, data: dict[str, Any]) -> dict[str, Any]:
        """Settings that name models by what these are."""
        motion = dict(data.get("motion", {}))
        for group, name in ((data, "model"), (motion, "keyframes")):
            if group.get(name):
                group[name] = self._versions.get(group[name]) or group[name]
        return {**data, "motion": motion}


def _rule_groups(spec: ArchiveSpec) -> tuple[_Groups, ...]:
    data = {"rules": [_plain_groups(rule) for rule in spec.rules]}
    return build(_AllGroups, data, "archive").rules


def _plain_groups(settings: ShowSettings) -> dict[str, Any]:
    return {name: dict(getattr(settings, name)) for name in _Groups.model_fields}


Settings = TypeVar("Settings", VideoSettings, FeatureSettings, MotionSettings)


def _laid_over(below: Settings, above: Settings) -> Settings:
    """Settings with those fields of others that somebody set."""
    return below.model_copy(update={name: getattr(above, name) for name in above.model_fields_set})


def _fits(rule: ShowRule, facts: ShowFacts) -> bool:
    match = rule.match
    if not may_fit(rule, facts.key):
        return False
    for name in TEXTS:
        patterns = getattr(match, name)
        if patterns is not None and not fits(patterns, getattr(facts, name)):
            return False
    if match.min_duration is None and match.max_duration is None:
        return True
    shortest, longest = match.min_duration or 0.0, match.max_duration or float("inf")
    return facts.duration_s is not None and shortest <= facts.duration_s <= longest


def _said(settings: BaseModel, **which: set[str]) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude_defaults=True, **which)  # type: ignore[arg-type]


def _model_version(uri: str) -> str:
    from asha_ray.vae.model_dir import FILES

    entries = storage_of(uri).list(uri)
    names = ((basename(entry.uri), entry.version) for entry in entries)
    found = {name: version for name, version in names if name in FILES}
    return digest_of(found) if found else ""
