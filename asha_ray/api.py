"""The public functions: what the command line can do, with the same settings as keywords.

Keyword settings are the command line's options with underscores (`keyframe_gap=0.5`); all of them
are listed in `asha_ray.spec.RENDER_OPTIONS` and `TRAIN_OPTIONS`.
"""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from asha_ray.config import find_target, read_config
from asha_ray.errors import JobError, SpecError
from asha_ray.progress import Progress
from asha_ray.spec import (
    ANALYZE_OPTIONS,
    ARCHIVE_OPTIONS,
    PATH_OPTIONS,
    RENDER_OPTIONS,
    STEMS_OPTIONS,
    TRAIN_OPTIONS,
    AnalyzeSettings,
    ArchiveSpec,
    JobSpec,
    PathSettings,
    Prices,
    RenderSpec,
    StemsSettings,
    TrainSpec,
    build,
    build_job,
    job_schema,
    with_fields,
    with_options,
)
from asha_ray.values import Features, FloatArray

if TYPE_CHECKING:
    from asha_ray.farm.archive.archive import ArchiveResult
    from asha_ray.farm.archive.forget import Forgotten
    from asha_ray.farm.archive.status import ArchiveStatus
    from asha_ray.farm.jobs.cancel import Cancelled
    from asha_ray.farm.jobs.status import JobStatus
    from asha_ray.farm.listening.separate import StemsResult
    from asha_ray.farm.models import Model
    from asha_ray.farm.rendering.render import RenderResult
    from asha_ray.farm.tools.bench import BenchResult
    from asha_ray.farm.tools.clean import CleanResult
    from asha_ray.farm.tools.demo import DemoResult
    from asha_ray.farm.tools.doctor import Finding
    from asha_ray.farm.tools.forecast import Forecast
    from asha_ray.farm.tools.inspect import Inspection
    from asha_ray.farm.tools.sample import SampleResult
    from asha_ray.farm.training.train import TrainResult
    from asha_ray.storage.jobs import Job

StrPath = str | PathLike[str]


def train(
    images: StrPath | TrainSpec,
    *,
    out: StrPath | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> "TrainResult":
    """Train a model on a folder of images.

    Args:
        images: a folder, local or `s3://`; or a whole `TrainSpec`.
        out: the model directory.
        progress: hears how far it is.
        **options: see `TRAIN_OPTIONS`.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.training.train import train as run

    if isinstance(images, TrainSpec):
        spec = images
    else:
        given = {"images": fspath(images), "out": _text(out), **options}
        spec = build(TrainSpec, with_options({}, given, TRAIN_OPTIONS))
    return run(spec, progress)


def sample(
    *,
    model: StrPath,
    out: StrPath,
    source: str = "prior",
    count: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> "SampleResult":
    """Draw novel pictures and a contact sheet of them.

    Args:
        model: a model directory, local or `s3://`.
        out: a folder for the pictures and `sheet.png`.
        source: `prior` or `keyframes` (the command line's `--from`).
        count: how many.
        seed: which.
        progress: hears of each picture.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.tools.sample import sample as run

    return run(fspath(model), fspath(out), source=source, count=count, seed=seed, progress=progress)


def analyze(
    audio: StrPath,
    *,
    out: StrPath | None = None,
    plot: StrPath | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Features:
    """Onset strength, beats, levels and decay envelopes of a track, frame by frame.

    Args:
        audio: a sound file, local or `s3://`.
        out: a features file to write (`.npz`).
        plot: a picture to draw (`.png`).
        progress: hears how far it is.
        **options: see `ANALYZE_OPTIONS`.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.listening.features import analyze as run

    settings = build(AnalyzeSettings, with_options({}, options, ANALYZE_OPTIONS))
    return run(fspath(audio), _text(out), _text(plot), settings, progress)


def stems(
    audio: StrPath,
    *,
    out: StrPath,
    progress: Progress | None = None,
    **options: Any,
) -> "StemsResult":
    """Separate a track into stems, one lossless file for each.

    Args:
        audio: a sound file, local or `s3://`.
        out: a folder for the files, `drums.wav` and so on.
        progress: hears how far it is.
        **options: see `STEMS_OPTIONS`.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.listening.separate import stems as run

    settings = build(StemsSettings, with_options({}, options, STEMS_OPTIONS))
    return run(fspath(audio), fspath(out), settings, progress)


def fetch_stems_model(name: str, *, progress: Progress | None = None) -> str:
    """Download one of Spleeter's published models, check it, and put it into the cache.

    Args:
        name: `2stems`, `4stems` or `5stems`.
        progress: hears of the bytes that came.

    Returns:
        The folder with its files.

    Raises:
        StemsError: if it cannot be had, saying how to place it by hand.
    """
    from asha_ray.audio.stems.models import fetch_model

    return str(fetch_model(name, progress=progress))


def setup_spleeter_tf(*, progress: Progress | None = None) -> str:
    """Build the environment in which the `spleeter` package itself runs, with TensorFlow.

    Returns:
        Its folder.

    Raises:
        StemsError: if it cannot be built.
    """
    from asha_ray.audio.stems.spleeter_tf import setup_tf

    return str(setup_tf(progress=progress))


def path(
    features: StrPath | Features,
    *,
    model: StrPath,
    out: StrPath | None = None,
    **options: Any,
) -> FloatArray:
    """The latents `[n, L]` float32 that a render of these features would decode.

    Args:
        features: a features file, local or `s3://`, or what `analyze` returned.
        model: a model directory.
        out: an array file to write (`.npy`).
        **options: see `PATH_OPTIONS`.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.listening.features import path as run

    settings = build(PathSettings, with_options({}, options, PATH_OPTIONS))
    given = features if isinstance(features, Features) else fspath(features)
    return run(given, fspath(model), _text(out), settings)


def render(
    audio: StrPath | RenderSpec | None = None,
    *,
    model: StrPath | None = None,
    out: StrPath | None = None,
    config: StrPath | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> "RenderResult":
    """Render a video.

    Args:
        audio: a sound file, local or `s3://`; or a whole `RenderSpec`.
        model: a model directory.
        out: the video.
        config: a spec file, or its content; other arguments override it.
        progress: hears how far it is.
        **options: see `RENDER_OPTIONS`.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.rendering.render import render as run

    if isinstance(audio, RenderSpec):
        return run(audio, progress)
    given = {"audio": _text(audio), "model": _text(model), "out": _text(out), **options}
    spec = build(RenderSpec, with_options(_read_config(config), given, RENDER_OPTIONS))
    return run(spec, progress)


def plan(
    what: StrPath | RenderSpec | TrainSpec | ArchiveSpec,
    *,
    model: StrPath | None = None,
    out: StrPath | None = None,
    config: StrPath | Mapping[str, Any] | None = None,
    workers: int | None = None,
    rates: StrPath | None = None,
    rate: float | None = None,
    prices: Prices | Mapping[str, Any] | None = None,
    **options: Any,
) -> "Forecast":
    """What a render, a training or an archive would take; nothing is rendered or written.

    Args:
        what: a sound file; a spec file (`.yaml`); a folder of sound files, which is an archive; or
            a spec.
        model: a model directory.
        out: where the video or the archive would go.
        config: a spec file, or its content; other arguments override it.
        workers: how many a cluster has: each a GPU, or the cores of a machine.
        rates: a file of rates, or what `bench --json` printed; this user's own where None.
        rate: frames per second of one worker, instead of what was measured.
        prices: what an hour costs; some of it (`gpu_hour`, `cpu_hour`, `currency`) is laid over
            what the configuration file says.
        **options: see `RENDER_OPTIONS`, and `ARCHIVE_OPTIONS` of an archive.

    Raises:
        SpecError: if there is no rate, saying how to get one.
        AshaError: another of its kinds.
    """
    from asha_ray.farm.tools.plan import is_spec_file, spec_of
    from asha_ray.farm.tools.plan import plan as run

    given = {"model": _text(model), "out": _text(out), "workers": workers, **options}
    if not isinstance(what, RenderSpec | TrainSpec | ArchiveSpec):
        place = fspath(what)
        if is_spec_file(place) and config is not None:
            raise SpecError(f"plan {place}: it is a spec file itself; leave config out")
        data = _read_config(place if is_spec_file(place) else config)
        what = spec_of(place, data, given)
    elif config is not None or any(value is not None for value in given.values()):
        raise SpecError("plan: options are laid over a file or a track, not over a spec")
    return run(what, rates=_text(rates), rate=rate, prices=prices)


def inspect(video: StrPath, *, decode: bool = True) -> "Inspection":
    """Measure a finished video and compare it with the record beside it.

    Args:
        video: local or `s3://`.
        decode: whether to decode every frame.

    Raises:
        VideoError: if it is no video.
    """
    from asha_ray.farm.tools.inspect import inspect as run

    return run(fspath(video), decode=decode)


def load_model(uri: StrPath) -> "Model":
    """Load a model directory, local or `s3://`, on the best device of this machine.

    Raises:
        ModelError: if it is missing, damaged or newer than this version.
    """
    from asha_ray.farm.models import load_model as run

    return run(fspath(uri))


def demo(out: StrPath = "demo", progress: Progress | None = None) -> "DemoResult":
    """Make art and music, train a small model on it, render, and inspect the video.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.tools.demo import demo as run

    return run(fspath(out), progress)


def doctor(*, progress: Progress | None = None, **target: Any) -> "list[Finding]":
    """What this machine has, and what it lacks; or a cluster, where anything says which.

    A cluster is looked at from here and, by a small job, from one of its workers.

    Args:
        progress: hears how far it is.
        **target: `address`, `token_file`, `work`, `image`; see `find_target`.

    Raises:
        SpecError: if these say no cluster.
    """
    if all(given is None for given in target.values()):
        from asha_ray.farm.tools.doctor import examine

        return examine()
    from asha_ray.farm.tools.doctor_cluster import examine_cluster

    return examine_cluster(find_target(**target), progress=progress)


def bench(
    model: StrPath | None = None,
    *,
    sizes: Sequence[str] = ("448x448", "1920x1080", "3840x2160"),
    vs: Sequence[str] = (),
    tune: bool = False,
    quick: bool = False,
    progress: Progress | None = None,
) -> "BenchResult":
    """Measure how fast this machine decodes, converts, encodes and renders, in frames per second.

    Args:
        model: a model directory; an initialised `seed` model of 448×448 where None.
        sizes: of the video.
        vs: settings to compare with the default ones, such as `fp32` or `batch=8`.
        tune: find the fastest numerics for this kind of device, and keep them for renders.
        quick: a rough look.
        progress: hears how far it is.

    Raises:
        AshaError: one of its kinds.
    """
    from asha_ray.farm.tools.bench import bench as run

    return run(_text(model), sizes=sizes, vs=vs, tune=tune, quick=quick, progress=progress)


def clean(
    work: StrPath,
    *,
    delete: bool = False,
    keep_days: float = 7,
    progress: Progress | None = None,
) -> "CleanResult":
    """Find what a work root holds that no finished or running render needs, and delete it.

    Args:
        work: a work root, local or `s3://`: `.asha` beside a video, or what `work` named.
        delete: delete it; else nothing is touched.
        keep_days: how long an unfinished render counts as needed after it was last heard of, since
            somebody may go on with it; 0 keeps only finished and running ones.
        progress: hears how far it is.

    Raises:
        NotFoundError: if there is no work root.
        AshaError: another of its kinds.
    """
    from asha_ray.farm.tools.clean import clean as run

    return run(fspath(work), delete=delete, keep_days=keep_days, progress=progress)


def archive(
    source: StrPath | ArchiveSpec | None = None,
    *,
    model: StrPath | None = None,
    out: StrPath | None = None,
    config: StrPath | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> "ArchiveResult":
    """Make a video of every show of an archive that has none yet.

    Args:
        source: a folder or prefix with sound files; or a whole `ArchiveSpec`.
        model: a model directory.
        out: a folder or prefix for the videos, the catalogue and the ledger.
        config: a spec file, or its content; other arguments override it.
        progress: hears how far it is.
        **options: see `ARCHIVE_OPTIONS`.

    Raises:
        AshaError: what hinders all shows; one that fails by itself is parked, and the result says.
    """
    from asha_ray.farm.archive.archive import archive as run

    if isinstance(source, ArchiveSpec):
        spec = source
    else:
        given = {"source": _text(source), "model": _text(model), "out": _text(out), **options}
        spec = build(ArchiveSpec, with_options(_read_config(config), given, ARCHIVE_OPTIONS))
    return run(spec, progress, prices=read_config().prices)


def archive_status(output: StrPath) -> "ArchiveStatus":
    """How far an archive is, and what needs a person.

    Args:
        output: of the archive.

    Raises:
        NotFoundError: if there is none.
    """
    from asha_ray.farm.archive.ask import read_status as run

    return run(fspath(output))


def archive_report(output: StrPath) -> str:
    """Write a page that shows an archive to people; returns where it is.

    Args:
        output: of the archive; the page is `report.html` in it.

    Raises:
        NotFoundError: if there is no archive.
    """
    from asha_ray.farm.archive.ask import report as run

    return run(fspath(output))


def archive_retry(
    output: StrPath, shows: Sequence[str] = (), *, progress: Progress | None = None
) -> "ArchiveResult":
    """Try shows of an archive again, with the settings of its last run.

    Args:
        output: of the archive.
        shows: their paths, ids, or parts of these; all that are parked where there are none.
        progress: hears how far it is.

    Raises:
        AshaError: if there is no such archive or show, or what hinders all shows.
    """
    from asha_ray.farm.archive.ask import retry as run

    return run(fspath(output), shows, progress, prices=read_config().prices)


def archive_forget(
    output: StrPath, show: str, *, dry_run: bool = False, progress: Progress | None = None
) -> "Forgotten":
    """Take a show of an archive down for good, with all that was made for it.

    Args:
        output: of the archive.
        show: its path, its video's, its id, or a part of one that no other has; the whole path
            of one that has not ended yet.
        dry_run: only say what would be removed.
        progress: hears of each stage.

    Raises:
        AshaError: if there is no such show, or a run has it in hand.
    """
    from asha_ray.farm.archive.ask import forget as run

    return run(fspath(output), show, dry_run=dry_run, progress=progress)


def submit(
    spec: StrPath | Mapping[str, Any] | JobSpec,
    *,
    fields: Sequence[str] = (),
    max_cost: float | None = None,
    progress: Progress | None = None,
    **target: Any,
) -> "Job":
    """Give a job to a Ray cluster; what it is made of is sent along where that is on this machine.

    Args:
        spec: a spec file, its content, or a spec.
        fields: `group.field=value`, laid over it (the command line's `--set`).
        max_cost: stop it, to be resumed, once its price so far passes this.
        progress: hears of what is sent.
        **target: `address`, `token_file`, `work`, `image`, `shared_disk`; see `find_target`.

    Raises:
        AshaError: one of its kinds; nothing was submitted then.
    """
    from asha_ray.farm.jobs.submit import submit as run

    if not isinstance(spec, JobSpec):
        what = "job" if isinstance(spec, Mapping) else f"reading spec {fspath(spec)}"
        spec = build_job(with_fields(_read_config(spec), fields), what)
    elif fields:
        raise SpecError("submit: fields are laid over a file or its content, not over a spec")
    return run(spec, find_target(**target), max_cost=max_cost, progress=progress)


def list_jobs(*, limit: int = 20, **target: Any) -> "list[JobStatus | JobError]":
    """The latest jobs of a work root, and the errors of those that cannot be read.

    Args:
        limit: how many.
        **target: `work`; see `find_target`.
    """
    from asha_ray.farm.jobs.status import list_jobs as run

    return run(find_target(**target, needs_token=False), limit)


def job_status(name: str, **target: Any) -> "JobStatus":
    """How far a job is, whether its cluster is still there or not.

    Args:
        name: of the job, or a part of it, or `last`.
        **target: `work`, `address`, `token_file`; see `find_target`.

    Raises:
        AshaError: if there is no such job.
    """
    from asha_ray.farm.jobs.status import job_status as run

    return run(name, find_target(**target, needs_token=False))


def job_log(name: str, **target: Any) -> Iterator[str]:
    """What a job has said so far, line by line; arguments as of `job_status`.

    Raises:
        AshaError: if there is no such job.
    """
    from asha_ray.farm.jobs.status import job_log as run

    return run(name, find_target(**target, needs_token=False))


def follow_job(name: str, **target: Any) -> "Iterator[str | JobStatus]":
    """What a job says, as it comes, and at last its status; arguments as of `job_status`.

    Raises:
        AshaError: if there is no such job.
    """
    from asha_ray.farm.jobs.status import follow as run

    return run(name, find_target(**target, needs_token=False))


def cancel_job(name: str, **target: Any) -> "Cancelled":
    """Let a job end within seconds; finished chunks are kept. Arguments as of `job_status`.

    Raises:
        AshaError: if there is no such job, or it has ended.
    """
    from asha_ray.farm.jobs.cancel import cancel as run

    return run(name, find_target(**target, needs_token=False))


def retry_job(
    name: str, *, max_cost: float | None = None, progress: Progress | None = None, **target: Any
) -> "Job":
    """Give a job that has ended to a cluster again, which may be another; finished chunks count.

    Args:
        name: of the job, or a part of it, or `last`.
        max_cost: another limit than before.
        progress: hears of what is sent.
        **target: see `submit`.

    Raises:
        AshaError: if it is at work, or done, or cannot be submitted.
    """
    from asha_ray.farm.jobs.submit import retry as run

    return run(name, find_target(**target), max_cost=max_cost, progress=progress)


def schema(kind: str | None = None) -> dict[str, Any]:
    """JSON Schema of spec files, for editors.

    Args:
        kind: `render`, `train` or `archive`; whichever a file says it is where None.

    Raises:
        SpecError: if there is no such kind.
    """
    return job_schema(kind)


def _text(path: StrPath | None) -> str | None:
    return None if path is None else fspath(path)


def _read_config(config: StrPath | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return config
    from asha_ray.farm.places import read_settings

    return read_settings(fspath(config), "spec", "give the right file")
