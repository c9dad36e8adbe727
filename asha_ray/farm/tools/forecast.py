"""What `plan` answers: a forecast, and what all forecasts have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal

from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.tools.pace import Pace, pace_of
from asha_ray.farm.tools.rates import Rates
from asha_ray.farm.training.dataset import list_images
from asha_ray.spec import Prices, RenderSpec, RunSettings, TrainSpec, parse_size
from asha_ray.vae.generator import pick_device
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.numerics import device_kind
from asha_ray.vae.training import num_batches
from asha_ray.values import Size

HOUR_S, WEEK_H = 3600.0, 7 * 24
SOUND_BYTES_PER_S = 24_000
"""Of the video's own sound: AAC in stereo."""


@dataclass(frozen=True)
class Forecast:
    """What a piece of work would take.

    Attributes:
        kind: `render`, `train` or `archive`.
        what: the track, the folder of images, or the archive.
        shows: tracks.
        source_bytes: of all tracks together, of an archive.
        duration_s: seconds of video.
        frames: of video.
        fps: frames per second, as `60` or `30000/1001`; empty of a training.
        size: width and height of the video, or of the pictures that are learned.
        chunks: pieces of work.
        reused_chunks: of these, those that are there already.
        missing_frames: that are yet to be rendered.
        listened: whether the track's features are kept, so that chunks are known by name.
        segment_bytes: that the work root grows by, about.
        video_bytes: of the finished videos, about.
        images: that are learned; 0 but of a training, as what follows.
        epochs: of the training.
        steps: of the training.
        workers: for which all this is reckoned.
        frames_per_s: of one worker; None of a training.
        rate_source: where that comes from.
        stages: what is done -> seconds that it takes, one after the other.
        seconds: from the command's beginning to its end; None where there is no rate.
        wall_s: the same without Python's own start: what the render will say itself.
        worker_hours: that workers are held.
        gpu_hours: of these, times what each reserves of GPUs.
        cpu_hours: hours of single cores, of workers that reserve no GPU.
        cost: by the price list; None where there is none.
        currency: of the cost.
        workers_for_a_week: how many would be done with it in seven days.
        notes: what was assumed.
    """

    kind: Literal["render", "train", "archive"]
    what: str
    shows: int = 0
    source_bytes: int = 0
    duration_s: float = 0.0
    frames: int = 0
    fps: str = ""
    size: Size = (0, 0)
    chunks: int = 0
    reused_chunks: int = 0
    missing_frames: int = 0
    listened: bool = False
    segment_bytes: int = 0
    video_bytes: int = 0
    images: int = 0
    epochs: int = 0
    steps: int = 0
    workers: int = 1
    frames_per_s: float | None = None
    rate_source: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    wall_s: float | None = None
    worker_hours: float | None = None
    gpu_hours: float | None = None
    cpu_hours: float | None = None
    cost: float | None = None
    currency: str = ""
    workers_for_a_week: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What a plan reckons with, beside the work itself.

    Attributes:
        rates: what was measured.
        source: where the rates come from.
        rate: frames per second of one worker, where a person says so.
        prices: what an hour costs; None where nobody says.
    """

    rates: Rates = field(default_factory=Rates)
    source: str = ""
    rate: float | None = None
    prices: Prices | None = None


def pace_for(spec: RenderSpec, files: ModelFiles, size: Size, known: Known) -> Pace:
    """The pace of a worker at a render, here or wherever it will be.

    Raises:
        SpecError: if there is no rate for it.
    """
    device = pick_device() if spec.run.device == "auto" else spec.run.device
    # A plan may be for machines that this is none of, so a GPU that is not here is no error.
    is_here = device != "cuda" or pick_device() == "cuda"
    pace = pace_of(
        known.rates,
        files.architecture,
        size,
        kind=device_kind(device) if is_here else device,
        cores=cpu_threads(),
        model=spec.model,
        crf=spec.video.crf,
        given=known.rate,
        source=known.source,
    )
    encoder = f"{spec.video.codec} {spec.video.preset}"
    if known.rate is None and encoder != "libx264 veryfast":
        pace = replace(pace, notes=(*pace.notes, f"measured with libx264 veryfast, not {encoder}"))
    return pace


def fixed_stages(spec: RenderSpec, pace: Pace) -> dict[str, float]:
    """Seconds until a command's executor has workers, whatever they will have to do."""
    machine = pace.machine
    if machine is None:
        return {"importing": 0.0, "starting": 0.0}
    started_s = machine.start_s.get(spec.run.executor, 0.0)
    return {"importing": machine.import_s, "starting": started_s}


def workers_of(spec: RenderSpec) -> tuple[int, list[str]]:
    """For how many workers a render is reckoned, and what must be said of that."""
    if spec.run.executor == "serial":
        return 1, []
    if spec.run.workers is None:
        return 1, ["for one worker; --workers says how many a cluster has"]
    return spec.run.workers, []


def priced(
    forecast: Forecast, pace: Pace, run: RunSettings, held_s: float, prices: Prices | None
) -> Forecast:
    """A forecast with its times, hours and cost, which are counted as a job's meter counts them."""
    hours, gpus = held_s / HOUR_S, _gpus_of(run, pace)
    gpu_hours = hours * gpus
    cpu_hours = 0.0 if gpus else hours * pace.cores
    is_shared = pace.on_gpu and gpus < 1
    shared = ("the rate is that of a worker with a GPU to itself",) if is_shared else ()
    seconds = sum(forecast.stages.values())
    cost = None
    if prices is not None:
        cost = gpu_hours * prices.gpu_hour + cpu_hours * prices.cpu_hour
    return replace(
        forecast,
        frames_per_s=pace.frames_per_s,
        rate_source=pace.source,
        seconds=seconds,
        wall_s=seconds - forecast.stages["importing"],
        worker_hours=hours,
        gpu_hours=gpu_hours,
        cpu_hours=cpu_hours,
        cost=cost,
        currency=prices.currency if prices else "",
        workers_for_a_week=max(1, ceil(hours / WEEK_H)),
        notes=(*pace.notes, *shared, *forecast.notes),
    )


def _gpus_of(run: RunSettings, pace: Pace) -> float:
    """What a worker reserves of GPUs; what is asked for counts even where it decodes on CPUs."""
    if run.executor == "ray" and run.gpus_per_worker is not None:
        return run.gpus_per_worker
    return 1.0 if pace.on_gpu else 0.0


def plan_training(spec: TrainSpec) -> Forecast:
    """What a training would do; how long that takes, nobody has measured.

    Raises:
        ImageError: if there are no images.
    """
    spec = absolute_paths(spec)
    num_images = len(list_images(spec.images))
    return Forecast(
        kind="train",
        what=spec.images,
        size=parse_size(spec.size),
        images=num_images,
        epochs=spec.epochs,
        steps=num_batches(num_images, spec.batch_size, spec.run.workers) * spec.epochs,
        workers=spec.run.workers,
        notes=(
            "there is no rate for training, so no time and no cost: bench measures renders; the "
            "first epoch's progress tells",
        ),
    )
