"""What a user writes: settings as frozen models, from a YAML file, from options, or from Python.

A spec file has groups (`video: {crf: 20}`); on the command line and in Python the same settings
are flat (`--crf 20`, `crf=20`). `RENDER_OPTIONS` and `TRAIN_OPTIONS` say which is which.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from fractions import Fraction
from os import PathLike
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from asha_ray.errors import SpecError
from asha_ray.values import Size

DROP_FRAME_RATES = {
    "23.976": "24000/1001",
    "23.98": "24000/1001",
    "29.97": "30000/1001",
    "59.94": "60000/1001",
}
MAX_SIDE = 16384
MAX_FPS = 1000
MAX_SPEC_BYTES = 1 << 16
"""A spec that names every setting has 2 kB; a second is spent on a file of this size at most."""
MAX_SPEC_DEPTH = 32
MAX_COMPLAINTS = 20
"""Wrong fields that are named; the rest is counted."""
MAX_COMPLAINT_CHARS = 300


def parse_fps(value: str | float | Fraction) -> Fraction:
    """Read a frame rate such as `60`, `24`, `30000/1001` or `29.97` exactly.

    Raises:
        ValueError: if it is no positive rational number up to 1000.
    """
    text = str(value).strip()[:40]
    if "e" in text.lower():  # no one means 1e9, and its digits would fill the memory
        raise ValueError(f"'{text}' is no frame rate; write one like 60 or 30000/1001")
    try:
        fps = Fraction(DROP_FRAME_RATES.get(text, text))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{text}' is no frame rate; write one like 60 or 30000/1001") from None
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"a frame rate lies between 0 and {MAX_FPS}, not {text}")
    return fps


def parse_size(value: str | int | Size) -> Size:
    """Read a picture size: `448` (square), `1920x1080`, or a pair (width, height).

    Raises:
        ValueError: if it is none of these, or a side is outside 1..16384.
    """
    if isinstance(value, tuple | list):
        value = "x".join(str(side) for side in value)
    match = re.fullmatch(r"\s*(\d{1,6})(?:\s*[x×X]\s*(\d{1,6}))?\s*", str(value))
    if not match:
        raise ValueError(f"'{value}' is no size; write one like 448 or 1920x1080")
    width = int(match[1])
    height = int(match[2] or width)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"a side has 1 to {MAX_SIDE} pixels, not {value}")
    return width, height


def _canonical_fps(value: Any) -> str:
    return str(parse_fps(value))


def _canonical_size(value: Any) -> str:
    width, height = parse_size(value)
    return f"{width}x{height}"


def _even_size(text: str) -> str:
    width, height = parse_size(text)
    if width % 2 or height % 2:
        better = f"{width + width % 2}x{height + height % 2}"
        raise ValueError(f"{text}: 4:2:0 video has even sides; try {better}")
    return text


def _path_text(value: Any) -> Any:
    # YAML reads a folder named 2023 as a number, and one named 2023-05-01 as a date.
    return str(value) if isinstance(value, PathLike | int | float | date) else value


def _no_null_byte(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path cannot hold a null byte")
    return text


Uri = Annotated[
    str,
    BeforeValidator(_path_text, json_schema_input_type=str | int | float),
    Field(min_length=1),
    AfterValidator(_no_null_byte),
]
Fps = Annotated[str, BeforeValidator(_canonical_fps, json_schema_input_type=str | int | float)]
SizeText = Annotated[
    str, BeforeValidator(_canonical_size, json_schema_input_type=str | int | list[int])
]
Seconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[
    str,
    BeforeValidator(_path_text, json_schema_input_type=str | int | float),
    Field(min_length=1, max_length=500),
    AfterValidator(_no_null_byte),
]
Executor = Literal["ray", "serial"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoSettings(_Frozen):
    """The picture: `size` is the model's own where absent.

    `sound` is how the track comes in: encoded anew, or copied as it is where an mp4 takes it.
    """

    size: Annotated[SizeText, AfterValidator(_even_size)] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    fps: Fps = "60"
    codec: Literal[
        "libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "auto"
    ] = "libx264"
    crf: Annotated[int, Field(ge=0, le=51)] = 18
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast",
        "medium", "slow", "slower", "veryslow",
    ] = "veryfast"  # fmt: skip
    sound: Literal["aac", "copy"] = "aac"


SpleeterModel = Literal["2stems", "4stems", "5stems"]
Stem = Literal[
    "mix", "vocals", "drums", "bass", "other", "piano", "accompaniment", "harmonic", "percussive"
]


class FeatureSettings(_Frozen):
    """How sound becomes curves; `decay_rate` is per frame at 60 fps, `decay_time` in seconds.

    `stems` is the separator; where it is `none` and `stem` is not `mix`, the stem decides.
    `normalise` is by the `track` up to 20 minutes, and `rolling` above, where absent.
    """

    stems: Literal["none", "hpss", "spleeter", "spleeter-tf"] = "none"
    stem: Stem = "mix"
    stems_model: SpleeterModel | None = None
    model_dir: Uri | None = None
    normalise: Literal["track", "rolling"] | None = None
    decay_time: Seconds = 0.25
    decay_rate: Annotated[float, Field(gt=0, lt=1)] = 0.25
    decay_shape: Literal["constant", "proportional"] = "constant"


class MotionSettings(_Frozen):
    """How curves move through latent space (the article's motion)."""

    name: Literal["seed-linear", "seed-exponential"] = "seed-exponential"
    keyframes: Uri | None = None
    keyframe_gap: Seconds = 1.0
    min_factor: Annotated[float, Field(gt=0, le=1e6)] = 1.0


def _part_or_whole(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError(
            f"{value:g} is no share of GPUs that Ray can give; it gives parts of one (0.5, 0.25) "
            "or whole ones (1, 2)"
        )
    return value


class RunSettings(_Frozen):
    """Where and how the work is done; nothing here is hashed.

    `gpus_per_worker` is what each worker reserves of Ray's GPUs; where absent, as many workers
    share a GPU as its node has cores to encode for. Of jobs that share a cluster, those of a higher
    `priority` come first.
    """

    executor: Executor = "ray"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    gpus_per_worker: (
        Annotated[
            float, Field(ge=0.01, le=1000, allow_inf_nan=False), AfterValidator(_part_or_whole)
        ]
        | None
    ) = None
    chunk_s: Seconds = 10.0
    work: Uri | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    allow_mixed: bool = False
    fresh: bool = False


class RenderSpec(_Frozen):
    """One video: a track, a model, and how they meet. `start` and `duration` are seconds.

    Renders of one `show` visit one family of the keyframes; its `episode`, a date or any text,
    moves the tour on.
    """

    version: Literal[1] = 1
    kind: Literal["render"] = "render"
    audio: Uri
    model: Uri
    output: Uri
    start: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    duration: Seconds | None = None
    seed: Seed = 0
    show: Name | None = None
    episode: Name | None = None
    video: VideoSettings = VideoSettings()
    features: FeatureSettings = FeatureSettings()
    motion: MotionSettings = MotionSettings()
    effects: tuple[()] = ()
    run: RunSettings = RunSettings()


class AnalyzeSettings(_Frozen):
    """What `analyze` takes beside its paths."""

    fps: Fps = "60"
    features: FeatureSettings = FeatureSettings()
    executor: Executor = "ray"
    work: Uri | None = None


class StemsSettings(_Frozen):
    """What `stems` takes beside its paths; Spleeter where its model is, else hpss, if absent."""

    separator: Literal["hpss", "spleeter", "spleeter-tf"] | None = None
    stems_model: SpleeterModel | None = None
    model_dir: Uri | None = None
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    executor: Executor = "ray"
    work: Uri | None = None


class PathSettings(_Frozen):
    """What `path` takes beside its paths."""

    motion: MotionSettings = MotionSettings()
    stem: Stem = "mix"
    seed: Seed = 0


class TrainRun(_Frozen):
    """Where training runs: workers are processes, each with a GPU where the cluster has them."""

    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    resume: bool = False


Filters = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1)]


def _parse_filters(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", value):
            raise ValueError(f"'{value}' are no filters; write them like 32,64,128")
        return tuple(int(part) for part in value.split(","))
    return value


FiltersText = Annotated[
    Filters, BeforeValidator(_parse_filters, json_schema_input_type=list[int] | str)
]


class TrainSpec(_Frozen):
    """One model: a folder of images and how it is learned.

    `batch_size` is per worker. `encoder_filters` and `decoder_filters` replace the preset's own.
    """

    version: Literal[1] = 1
    kind: Literal["train"] = "train"
    images: Uri
    output: Uri
    preset: Literal["seed", "studio"] = "seed"
    size: SizeText = "448x448"
    fit: Literal["crop", "pad", "stretch"] = "crop"
    latent: Annotated[int, Field(ge=1, le=65536)] = 200
    epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    kl_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    encoder_filters: FiltersText | None = None
    decoder_filters: FiltersText | None = None
    keyframes_from: Literal["mean", "sample"] = "mean"
    seed: Seed = 0
    run: TrainRun = TrainRun()


Globs = Annotated[
    tuple[Name, ...],
    BeforeValidator(
        lambda value: (value,) if isinstance(value, str) else value,
        json_schema_input_type=list[str] | str,
    ),
]
"""Patterns with `*`, `?` and `[…]`; a text alone is one."""
Group = Mapping[str, Any]
"""Some fields of a group of settings."""


class ShowMatch(_Frozen):
    """Which shows a rule is for: those that fit all that is said here.

    Patterns know no upper and lower case. `path` is below the source, durations are seconds.
    """

    path: Globs | None = None
    show: Globs | None = None
    title: Globs | None = None
    artist: Globs | None = None
    album: Globs | None = None
    date: Globs | None = None
    min_duration: Seconds | None = None
    max_duration: Seconds | None = None


class ShowSettings(_Frozen):
    """What may differ from show to show; groups are laid over the archive's, field by field."""

    skip: bool | None = None
    model: Uri | None = None
    seed: Seed | None = None
    start: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    duration: Seconds | None = None
    video: Group = Field(default_factory=dict)
    features: Group = Field(default_factory=dict)
    motion: Group = Field(default_factory=dict)


class ShowRule(ShowSettings):
    """Settings of some shows; of several rules for one show, later ones come over earlier ones."""

    match: ShowMatch = ShowMatch()


class Sidecar(ShowSettings):
    """What lies beside a sound file, as `show.mp3.asha.yaml`: its settings, and its tags."""

    version: Literal[1] = 1
    show: Name | None = None
    title: Name | None = None
    artist: Name | None = None
    album: Name | None = None
    date: Name | None = None


class ArchiveVideoSettings(VideoSettings):
    """An archive's picture; its sound is copied as it is, where nobody says otherwise."""

    sound: Literal["aac", "copy"] = "copy"


class ArchiveSpec(_Frozen):
    """A whole archive: sound files below `source`, and a video of each below `output`.

    Of files below the source those count whose path fits `include` and not `exclude`; without
    `include`, those that are named as sound is. `names` makes an output's name of `{path}`,
    `{folder}`, `{stem}`, `{show}`, `{date}`, `{year}`, `{title}`, `{artist}`, `{album}` and `{id}`;
    `paths` reads missing tags from a path in the same words. A show that fails is tried `attempts`
    times. `limit` takes only so many in one run.
    """

    version: Literal[1] = 1
    kind: Literal["archive"] = "archive"
    source: Uri
    output: Uri
    model: Uri
    include: Globs = ()
    exclude: Globs = ()
    order: Literal["path", "newest", "largest"] = "path"
    limit: Annotated[int, Field(ge=1)] | None = None
    names: Annotated[str, Field(min_length=1, max_length=500)] = "{path}"
    paths: Globs = ()
    seed: Seed | None = None
    video: ArchiveVideoSettings = ArchiveVideoSettings()
    features: FeatureSettings = FeatureSettings()
    motion: MotionSettings = MotionSettings()
    effects: tuple[()] = ()
    rules: tuple[ShowRule, ...] = ()
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    run: RunSettings = RunSettings()


class Prices(_Frozen):
    """What an hour costs: a worker with a GPU costs its share of one, any other its CPUs.

    `gpu_hour` is of one GPU with all that its machine has beside it, `cpu_hour` of one core.
    """

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    gpu_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    cpu_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


JobSpec = RenderSpec | TrainSpec | ArchiveSpec
"""What a cluster can be given to do."""

JOB_KINDS: Mapping[str, type[RenderSpec] | type[TrainSpec] | type[ArchiveSpec]] = {
    "render": RenderSpec,
    "train": TrainSpec,
    "archive": ArchiveSpec,
}

_FEATURE_OPTIONS = {name: f"features.{name}" for name in FeatureSettings.model_fields}
_MOTION_OPTIONS = {
    "motion": "motion.name",
    **{name: f"motion.{name}" for name in ("keyframes", "keyframe_gap", "min_factor")},
}

RENDER_OPTIONS: Mapping[str, str] = {
    **{name: name for name in ("audio", "model", "start", "duration", "seed", "show", "episode")},
    "out": "output",
    **{name: f"video.{name}" for name in VideoSettings.model_fields},
    **_FEATURE_OPTIONS,
    **_MOTION_OPTIONS,
    **{
        name: f"run.{name}"
        for name in (
            "executor",
            "device",
            "workers",
            "gpus_per_worker",
            "work",
            "priority",
            "allow_mixed",
            "fresh",
        )
    },
    "chunk_seconds": "run.chunk_s",
}
"""Flat option name -> field path of `RenderSpec`."""

ARCHIVE_OPTIONS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            "source",
            "model",
            "include",
            "exclude",
            "order",
            "limit",
            "names",
            "paths",
            "seed",
            "attempts",
        )
    },
    **{
        name: path
        for name, path in RENDER_OPTIONS.items()
        if path.partition(".")[0] in ("video", "features", "motion", "run")
    },
    "out": "output",
}
"""Flat option name -> field path of `ArchiveSpec`."""

TRAIN_OPTIONS: Mapping[str, str] = {
    **{
        name: name
        for name in TrainSpec.model_fields
        if name not in ("version", "kind", "output", "run")
    },
    "out": "output",
    "workers": "run.workers",
    "resume": "run.resume",
}
"""Flat option name -> field path of `TrainSpec`."""

ANALYZE_OPTIONS: Mapping[str, str] = {
    **{name: name for name in ("fps", "executor", "work")},
    **_FEATURE_OPTIONS,
}
"""Flat option name -> field path of `AnalyzeSettings`."""

STEMS_OPTIONS: Mapping[str, str] = {name: name for name in StemsSettings.model_fields}
"""Flat option name -> field path of `StemsSettings`."""

PATH_OPTIONS: Mapping[str, str] = {"seed": "seed", "stem": "stem", **_MOTION_OPTIONS}
"""Flat option name -> field path of `PathSettings`."""

_Spec = TypeVar("_Spec", bound=BaseModel)


def explain(error: ValidationError, what: str) -> str:
    """All of a validation error's complaints in a line each, with the field's path."""
    lines = []
    complaints = error.errors()
    for item in complaints[:MAX_COMPLAINTS]:
        where = ".".join(str(part) for part in item["loc"]) or what
        reason = item["msg"].removeprefix("Value error, ")[:MAX_COMPLAINT_CHARS]
        given = item.get("input")
        if item["type"] not in ("missing", "extra_forbidden", "value_error"):
            reason += f" (got {_shown(given)!r})"
        lines.append(f"{where[:80]}: {reason}")
    if len(complaints) > MAX_COMPLAINTS:
        lines.append(f"… and {len(complaints) - MAX_COMPLAINTS} more")
    return f"{what}: " + "\n  ".join(lines)


def _shown(value: Any) -> str:
    try:
        return str(value)[:80]
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "a number of thousands of digits"


def build(kind: type[_Spec], data: Mapping[str, Any], what: str = "settings") -> _Spec:
    """Validate plain data as a spec.

    Raises:
        SpecError: naming every wrong field at once.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SpecError(explain(error, what)) from error


def with_options(
    data: Mapping[str, Any], options: Mapping[str, Any], paths: Mapping[str, str]
) -> dict[str, Any]:
    """Lay flat options over a spec's plain data; options that are None were not given.

    Raises:
        SpecError: on an option that does not exist.
    """
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()
    }
    for name, value in options.items():
        if name not in paths:
            known = ", ".join(sorted(paths))
            raise SpecError(f"settings: there is no option '{name}'; there are {known}")
        if value is None:
            continue
        *groups, last = paths[name].split(".")
        target = merged
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise SpecError(
                    f"settings: {group} must be a group of fields, not {_shown(target)!r}"
                )
        target[last] = value
    return merged


def build_job(data: Mapping[str, Any], what: str = "job") -> JobSpec:
    """Validate plain data as the spec of a job, by its `kind`; a render where it has none.

    Raises:
        SpecError: naming every wrong field at once.
    """
    kind = data.get("kind", "render")
    if not isinstance(kind, str) or kind not in JOB_KINDS:
        raise SpecError(
            f"{what}: kind: there is no {_shown(kind)!r}; there are {', '.join(JOB_KINDS)}"
        )
    return build(JOB_KINDS[kind], data, what)


def with_fields(data: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Lay `path.to.field=value` over a spec's plain data; a value is read as YAML would read it.

        >>> with_fields({"video": {"crf": 20}}, ["video.fps=30", "seed=7"])
        {'video': {'crf': 20, 'fps': 30}, 'seed': 7}

    Raises:
        SpecError: if one is no such assignment.
    """
    merged: dict[str, Any] = dict(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise SpecError(
                f"--set {assignment[:80]}: write it as field=value or group.field=value"
            )
        value = parse_yaml(f"value: {text or 'null'}", f"--set {path[:80]}")["value"]
        group = merged
        for name in names[:-1]:
            inner = group.get(name, {})
            if not isinstance(inner, Mapping):
                raise SpecError(f"--set {path[:80]}: {name} is no group of fields")
            group[name] = dict(inner)
            group = group[name]
        group[names[-1]] = value
    return merged


def job_schema(kind: str | None = None) -> dict[str, Any]:
    """JSON Schema of spec files, for editors: of one kind, or of whichever a file says it is.

    Raises:
        SpecError: if there is no such kind.
    """
    if kind is not None and kind not in JOB_KINDS:
        raise SpecError(f"schema: there is no kind {kind!r}; there are {', '.join(JOB_KINDS)}")
    wanted: Any = JobSpec if kind is None else JOB_KINDS[kind]
    schema = TypeAdapter(wanted).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _SpecLoader(yaml.SafeLoader):
    """Plain values only: a few aliases of aliases would be billions of fields."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="an alias (*name) is not read; write the value out", problem_mark=mark
            )
        if self._depth >= MAX_SPEC_DEPTH:
            raise yaml.MarkedYAMLError(problem="it is nested too deep", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:  # PyYAML takes the last
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value[:80]} is there twice", problem_mark=key.start_mark
                )
            names.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return dict(super().construct_mapping(node, deep=deep))


def parse_yaml(text: str, what: str) -> dict[str, Any]:
    """A spec file's text as plain data.

    Raises:
        SpecError: if it is no YAML, holds no mapping of groups, or is larger or deeper than a spec.
    """
    if len(text) > MAX_SPEC_BYTES:
        raise SpecError(
            f"reading spec {what}: more than {MAX_SPEC_BYTES >> 10} kB are no spec; give the right "
            "file"
        )
    try:
        data = _SpecLoader(text).get_single_data()
    # Of numbers and dates that are none, PyYAML gives Python's own errors.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:MAX_COMPLAINT_CHARS]
        raise SpecError(f"reading spec {what}: it is no valid YAML: {reason}") from error
    if not isinstance(data, dict):
        raise SpecError(f"reading spec {what}: it must hold fields like `audio:` and `model:`")
    for group in ("video", "features", "motion", "run"):
        if group in data and not isinstance(data[group], dict):
            raise SpecError(f"reading spec {what}: {group} must be a group of fields")
    return data
