"""`bench`: how fast this machine decodes, converts, encodes and renders, and how near to its limit.

Machines are shared, and their speed changes while one looks. So nothing is measured alone: every
round measures each stage of each setting once, rounds repeat, and medians are compared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

from asha_ray import ffmpeg
from asha_ray.errors import AshaError, SpecError
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.models import load_files
from asha_ray.farm.rendering.numerics import MIN_PSNR_DB, choose, psnr_db, read_table, write_table
from asha_ray.farm.rendering.plan import ENCODER_THREADS
from asha_ray.farm.rendering.task import decoders_for
from asha_ray.farm.tools.bench_machine import measure_machine, now
from asha_ray.farm.tools.bench_stages import (
    STAGES,
    PeakMemory,
    Reading,
    Setting,
    Stages,
    sample_model,
)
from asha_ray.farm.tools.rates import (
    PipelineRate,
    Rates,
    architecture_digest,
    merged,
    read_rates,
    write_rates,
)
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import parse_size
from asha_ray.vae.architecture import Architecture
from asha_ray.vae.generator import pick_device
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.numerics import DTYPES, Row, describe, device_kind, numerics_of
from asha_ray.values import EncoderSettings, Size
from asha_ray.video.codecs import CODECS, PRESETS

SIZES = ("448x448", "1920x1080", "3840x2160")
ROUNDS, SECONDS = 5, 3.0
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.5
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
TUNE_BATCHES = {"cpu": (1, 2, 4, 8), "cuda": (4, 8, 16, 32, 64), "mps": (4, 8, 16)}


@dataclass(frozen=True)
class Measured:
    """One setting at one size. All rates are frames per second; `spread` is (max - min) / median.

    Attributes:
        size: width and height of the video.
        setting: what was compared, `default` or as given with `--vs`.
        decode: latents to pictures in float, on all cores.
        convert: pictures to 4:2:0 bytes at the video's size, on all cores.
        encode: 4:2:0 bytes to a segment, on all cores.
        pipeline: all of it, overlapped.
        bound: `1 / (1 / decode + 1 / encode)` where both share the CPU's cores, else the slower.
        fraction: `pipeline / bound`, the median of the rounds' own.
        spread: of each rate.
        cost_ms: CPU time of each stage for a frame, over all processes.
        cost_fraction: what decoding and encoding cost by themselves, of what the pipeline costs:
            the same as `fraction` on an idle machine, and still true on a busy one. On a CPU only.
    """

    size: str
    setting: str
    decode: float
    convert: float
    encode: float
    pipeline: float
    bound: float
    fraction: float
    spread: Mapping[str, float]
    cost_ms: Mapping[str, float]
    cost_fraction: float


@dataclass(frozen=True)
class BenchResult:
    """What was measured.

    Attributes:
        kind: of device.
        cores: CPU cores that were used.
        numerics: of the default setting, and why, in words.
        encoder: of the default setting.
        rows: a line for each size and setting.
        peak_bytes: largest resident memory of this process and all it started, together.
        tuned: what was written for this kind of device, None without `tune`.
        table: where it was written, empty without `tune`.
        rates: what `plan` needs of it.
        rates_file: where these are kept, with those of earlier measurements.
    """

    kind: str
    cores: int
    numerics: str
    encoder: str
    rows: tuple[Measured, ...]
    peak_bytes: int
    tuned: Row | None = None
    table: str = ""
    rates: Rates = field(default_factory=Rates)
    rates_file: str = ""

    def document(self) -> dict[str, Any]:
        """As plain data; `plan --rates` takes it too."""
        return {**asdict(self), "rates": self.rates.model_dump(mode="json")}


class _Steady(NamedTuple):
    """One segment that goes on and on: frames a second, and seconds that it takes beside them."""

    rate: float
    begin_s: float
    bits_per_pixel: float


def bench(
    model: str | None = None,
    *,
    sizes: Sequence[str] = SIZES,
    vs: Sequence[str] = (),
    tune: bool = False,
    quick: bool = False,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure this machine.

    Args:
        model: a model directory; an initialised `seed` model of 448×448 where None.
        sizes: of the video, as `1920x1080`.
        vs: settings to compare with the default: `fp32`, `bf16`, `fp16`, `batch=8`, `threads=2`,
            `decoders=1`, `codec=libx265`, `preset=fast`, `encoder-threads=4`; several at once
            joined by commas.
        tune: find the fastest numerics for this kind of device first, and write them to this
            user's table.
        quick: a rough look.
        progress: hears how far it is.

    Raises:
        SpecError: if a setting or size cannot be understood, or this user's rates cannot be read.
        ModelError: if the model cannot be loaded.
    """
    progress = progress or NullProgress()
    parsed = [_size(text) for text in sizes]
    read_rates()  # what is measured in minutes must not end at a file that cannot be added to
    files = load_files(model, decoder_only=True) if model else sample_model()
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    kind = device_kind(pick_device())
    default = _default(kind, files, files.architecture.image_size)
    settings = {"default": default, **{text: _changed(default, text) for text in vs}}
    with PeakMemory() as memory:
        tuned = _tune(kind, files, rounds, seconds, progress) if tune else None
        if tuned:
            path = write_table({**read_table(), kind: tuned})
            settings["default"] = replace(default, numerics=numerics_of(kind, {kind: tuned}))
        rows, steady = [], {}
        for size in parsed:
            measured, steady[size] = _measure(files, size, settings, rounds, seconds, progress)
            rows += measured
    machine = measure_machine(kind, model, quick=quick, progress=progress)
    chosen = settings["default"]
    costs = [row.cost_ms["pipeline"] for row in rows if row.setting == "default"]
    rates = Rates(
        pipelines=tuple(
            _pipeline_rate(chosen, files.architecture, size, steady[size], cost)
            for size, cost in zip(parsed, costs, strict=True)
        ),
        machines=(machine,),
    )
    return BenchResult(
        kind=kind,
        cores=cpu_threads(),
        numerics=describe(chosen.numerics),
        encoder=_in_words(chosen.encoder),
        rows=tuple(rows),
        peak_bytes=memory.peak_bytes,
        tuned=tuned,
        table=str(path) if tuned else "",
        rates=rates,
        rates_file=_kept(rates, progress),
    )


def _kept(rates: Rates, progress: Progress) -> str:
    """Where rates are kept now; empty, and a note, where they cannot be written."""
    try:
        return str(write_rates(merged(read_rates(), rates)))
    except (OSError, AshaError) as error:
        progress.note(f"keeping rates for `asha-ray plan`: {error}; keep what --json prints")
        return ""


def _in_words(encoder: EncoderSettings) -> str:
    return f"{encoder.codec} {encoder.preset} crf {encoder.crf}, {encoder.threads} threads"


def _pipeline_rate(
    setting: Setting, architecture: Architecture, size: Size, steady: _Steady, cost_ms: float
) -> PipelineRate:
    width, height = architecture.image_size
    return PipelineRate(
        kind=setting.numerics.kind,
        model=architecture_digest(architecture),
        model_name=f"{architecture.name} {width}x{height}",
        size=size,
        cores=cpu_threads(),
        frames_per_s=steady.rate,
        chunk_s=steady.begin_s,
        cost_ms=cost_ms,
        bits_per_pixel=steady.bits_per_pixel,
        encoder=_in_words(setting.encoder),
        crf=setting.encoder.crf,
        time=now(),
    )


def _size(text: str) -> Size:
    try:
        return parse_size(text)
    except ValueError as error:
        raise SpecError(f"size: {error}") from error


def _default(kind: str, files: ModelFiles, size: Size) -> Setting:
    numerics, _ = choose(kind, files, files.keyframes)
    cores = cpu_threads()
    encoder = EncoderSettings("libx264", 18, "veryfast", ENCODER_THREADS, ffmpeg.version())
    return Setting(numerics, encoder, decoders_for(numerics, cores), size)


def _changed(default: Setting, text: str) -> Setting:
    """The default with what a `--vs` says.

    Raises:
        SpecError: naming what could be said.
    """
    changes: dict[str, Callable[[Setting, str], Setting]] = {
        "batch": lambda s, v: replace(s, numerics=replace(s.numerics, batch_size=_count(v))),
        "threads": lambda s, v: replace(s, numerics=replace(s.numerics, threads=_count(v))),
        "decoders": lambda s, v: replace(s, num_decoders=_count(v)),
        "encoder-threads": lambda s, v: replace(s, encoder=replace(s.encoder, threads=_count(v))),
        "codec": lambda s, v: replace(s, encoder=replace(s.encoder, codec=_one_of(v, CODECS))),
        "preset": lambda s, v: replace(s, encoder=replace(s.encoder, preset=_one_of(v, PRESETS))),
    }
    setting = default
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            if name in DTYPE_NAMES and not value:
                numerics = replace(setting.numerics, dtype=DTYPE_NAMES[name])
                setting = replace(setting, numerics=numerics)
            else:
                setting = changes[name](setting, value)
        except (KeyError, ValueError) as error:
            known = ", ".join([*DTYPE_NAMES, *(f"{key}=…" for key in changes)])
            raise SpecError(f"vs: '{part}' cannot be compared; there are {known}") from error
    return setting


def _count(text: str) -> int:
    if not 1 <= int(text) <= 1024:
        raise ValueError(text)
    return int(text)


def _one_of(text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise ValueError(text)
    return text


def _measure(
    files: ModelFiles,
    size: Size,
    settings: Mapping[str, Setting],
    rounds: int,
    seconds: float,
    progress: Progress,
) -> tuple[list[Measured], _Steady]:
    name = f"{size[0]}x{size[1]}"
    progress.stage(f"measuring {name}", rounds * len(settings), "rounds")
    benches = {label: Stages(files, replace(s, size=size)) for label, s in settings.items()}
    rounds_of: dict[str, list[dict[str, Reading]]] = {label: [] for label in settings}
    least: list[Reading] = []
    try:
        for _ in range(rounds):
            for label, stages in benches.items():
                found = {stage: stages.measure(stage, seconds) for stage in STAGES}
                rounds_of[label].append(found)
                progress.advance()
            least.append(benches["default"].measure("pipeline", 0.0))
    finally:
        for stages in benches.values():
            stages.close()
    rows = [
        _summary(name, label, readings, shared=settings[label].numerics.device == "cpu")
        for label, readings in rounds_of.items()
    ]
    long = [found["pipeline"] for found in rounds_of["default"]]
    return rows, _steady(size, long, least)


def _steady(size: Size, long: Sequence[Reading], least: Sequence[Reading]) -> _Steady:
    """What a chunk's frames take and what its beginning and end do, told apart by two lengths.

    Where noise, or a stage as short, hides the difference, all counts as frames.
    """
    pairs = []
    for most, little in zip(long, least, strict=True):
        most_s, little_s = most.num_frames / most.rate, little.num_frames / little.rate
        frames, seconds = most.num_frames - little.num_frames, most_s - little_s
        rate = frames / seconds if frames > 0 and seconds > 0 else float("inf")
        begin_s = little_s - little.num_frames / rate
        is_told = rate < float("inf") and begin_s > 0
        pairs.append((rate, begin_s) if is_told else (most.rate, 0.0))
    bits = [8 * r.num_bytes / (r.num_frames * size[0] * size[1]) for r in long]
    rate, begin_s = (median(values) for values in zip(*pairs, strict=True))
    return _Steady(rate, begin_s, median(bits))


def _summary(
    size: str, label: str, readings: Sequence[Mapping[str, Reading]], *, shared: bool
) -> Measured:
    rounds = [{stage: reading.rate for stage, reading in found.items()} for found in readings]
    bounds = [
        1 / (1 / found["decode"] + 1 / found["encode"])
        if shared
        else min(found["decode"], found["encode"])
        for found in rounds
    ]
    medians = {stage: median(found[stage] for found in rounds) for stage in STAGES}
    spread = {
        stage: (max(r[stage] for r in rounds) - min(r[stage] for r in rounds)) / medians[stage]
        for stage in STAGES
    }
    pairs = zip(rounds, bounds, strict=True)
    costs = [{stage: reading.cost_ms for stage, reading in found.items()} for found in readings]
    return Measured(
        size=size,
        setting=label,
        **medians,
        bound=median(bounds),
        fraction=median(found["pipeline"] / bound for found, bound in pairs),
        spread=spread,
        cost_ms={stage: median(cost[stage] for cost in costs) for stage in STAGES},
        cost_fraction=median((c["decode"] + c["encode"]) / c["pipeline"] for c in costs),
    )


def _tune(kind: str, files: ModelFiles, rounds: int, seconds: float, progress: Progress) -> Row:
    """The fastest row for this kind of device among those that keep the pictures."""
    device = kind.partition("-")[0]
    cores = cpu_threads()
    candidates = list(_candidates(device, cores))
    precise = {"float32"}
    for dtype in DTYPES:
        numerics = replace(numerics_of(kind), dtype=dtype)
        if dtype != "float32" and psnr_db(files, numerics, files.keyframes) >= MIN_PSNR_DB:
            precise.add(dtype)
    candidates = [row for row in candidates if row.dtype in precise]
    progress.stage("tuning", rounds * len(candidates), "rounds")
    rates: dict[Row, list[float]] = {row: [] for row in candidates}
    for _ in range(rounds):
        for row in candidates:
            numerics = numerics_of(kind, {kind: row})
            setting = Setting(
                numerics,
                EncoderSettings("libx264", 18, "veryfast", ENCODER_THREADS, ""),
                decoders_for(numerics, cores),
                files.architecture.image_size,
            )
            stages = Stages(files, setting)
            try:
                rates[row].append(stages.measure("decode", seconds / 3).rate)
            finally:
                stages.close()
            progress.advance()
    best = max(candidates, key=lambda row: median(rates[row]))
    progress.note(f"fastest on {kind}: {describe(numerics_of(kind, {kind: best}))}")
    return best


def _candidates(device: str, cores: int) -> Iterator[Row]:
    dtypes = ("float32", "bfloat16") if device == "cpu" else tuple(DTYPES)
    modes = ("none", "max-autotune-no-cudagraphs") if device == "cuda" else ("none",)
    threads = sorted({1, min(2, cores)}) if device == "cpu" else (0,)
    for dtype in dtypes:
        for batch_size in TUNE_BATCHES[device]:
            for count in threads:
                for mode in modes:
                    yield Row(dtype, device != "mps", batch_size, count, mode)
