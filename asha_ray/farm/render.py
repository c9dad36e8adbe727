"""A render from spec to finished video: the one place where the stages are put together."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from asha_ray.errors import AshaError, FarmError, SpecError
from asha_ray.farm.analysis import Analysis, AnalysisJob, analysis_job
from asha_ray.farm.assemble import AssemblyJob
from asha_ray.farm.executor import Executor, executor_for
from asha_ray.farm.models import load_files
from asha_ray.farm.numerics import choose
from asha_ray.farm.places import absolute
from asha_ray.farm.plan import (
    Plan,
    check_memory,
    encoder_settings,
    keyframes_of,
    make_plan,
    video_size,
    work_uri,
)
from asha_ray.farm.survey import choose_codec
from asha_ray.farm.worker import ChunkTask, WorkerJob
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import RenderSpec
from asha_ray.storage import storage_of
from asha_ray.storage.work import WorkRoot
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import Manifest, Segment
from asha_ray.video.frames import chunk_latents


@dataclass(frozen=True)
class RenderResult:
    """What a render did.

    Attributes:
        output: where the video is.
        render_id: its identity.
        frames: in the video.
        fps: frames per second, as `60` or `30000/1001`.
        duration_s: seconds of picture.
        chunks: pieces it was rendered in.
        reused_chunks: pieces that an earlier render had left.
        wall_s: seconds it took.
    """

    output: str
    render_id: str
    frames: int
    fps: str
    duration_s: float
    chunks: int
    reused_chunks: int
    wall_s: float


def render(spec: RenderSpec, progress: Progress | None = None) -> RenderResult:
    """Render a video, on Ray or in this process.

    Args:
        spec: everything about it.
        progress: hears how far it is.

    Raises:
        AshaError: one of its kinds, before work starts where that can be known.
    """
    progress = progress or NullProgress()
    started = time.monotonic()
    spec = _with_absolute_paths(spec)
    storage_of(spec.output).check_writable(spec.output)
    job = analysis_job(spec.audio, spec.video.fps, spec.features)
    executor = executor_for(spec.run.executor, spec.run.workers)
    files = load_files(spec.model, decoder_only=True)
    with executor:
        return _render_on(executor, spec, job, files, progress, started)


def _render_on(
    executor: Executor,
    spec: RenderSpec,
    job: AnalysisJob,
    files: ModelFiles,
    progress: Progress,
    started: float,
) -> RenderResult:
    work = work_uri(spec)
    worker_job = _worker_job(executor, spec, files, progress)
    executor.warm_up(worker_job)

    progress.stage("listening", unit="s of sound")
    analysis = executor.analyze(job, work, progress)
    _tell_oddities(analysis, spec.features.stem, progress)
    plan = make_plan(spec, analysis, files, worker_job.numerics, worker_job.encoder)
    WorkRoot(work).write_manifest(plan.manifest)

    segments, num_reused = _render_chunks(executor, worker_job, plan, progress)
    progress.stage("stitching")
    executor.assemble(
        AssemblyJob(
            manifest=plan.manifest,
            segments=segments,
            audio=spec.audio,
            output=spec.output,
            work=work,
            model_summary={"uri": spec.model, "training": dict(files.training)},
        )
    )
    manifest = plan.manifest
    return RenderResult(
        output=spec.output,
        render_id=manifest.render_id,
        frames=manifest.num_frames,
        fps=str(manifest.fps),
        duration_s=float(manifest.num_frames / manifest.fps),
        chunks=len(manifest.chunks),
        reused_chunks=num_reused,
        wall_s=round(time.monotonic() - started, 3),
    )


def _worker_job(
    executor: Executor, spec: RenderSpec, files: ModelFiles, progress: Progress
) -> WorkerJob:
    """What could make two machines differ, chosen here, once, for all of them."""
    found, cores = executor.survey(spec.video.codec), executor.cores()
    numerics, chosen = choose(found.kind, files, keyframes_of(spec, files))
    numerics = replace(numerics, torch_version=found.torch_version)
    codec, why = choose_codec(spec.video.codec, found)
    if codec in found.failures:
        raise SpecError(f"video.codec: {found.failures[codec]}; choose libx264, or auto")
    for told in (chosen, why):
        if told:
            progress.note(told)
    job = WorkerJob(
        model=spec.model,
        numerics=numerics,
        encoder=encoder_settings(spec, cores, codec),
        size=video_size(spec, files.architecture.image_size),
        fit=spec.video.fit,
        fps=Fraction(spec.video.fps),
        work=work_uri(spec),
        cores=cores,
        allow_mixed=spec.run.allow_mixed,
    )
    check_memory(files, numerics, job.num_decoders)
    return job


def _render_chunks(
    executor: Executor, job: WorkerJob, plan: Plan, progress: Progress
) -> tuple[tuple[Segment, ...], int]:
    """All segments in order, and how many of them were there before."""
    manifest, root = plan.manifest, WorkRoot(job.work)
    found = {chunk.chunk_id: root.find_segment(chunk.chunk_id) for chunk in manifest.chunks}
    segments = {key: segment for key, segment in found.items() if segment is not None}
    num_reused = sum(chunk.chunk_id in segments for chunk in manifest.chunks)
    missing = {chunk.chunk_id: chunk for chunk in manifest.chunks if chunk.chunk_id not in segments}

    def tasks() -> Iterator[ChunkTask]:
        for chunk in missing.values():
            yield ChunkTask(chunk, chunk_latents(plan.path, chunk, job.numerics.batch_size))

    if num_reused:
        progress.note(f"{num_reused} of {len(manifest.chunks)} chunks are there already")
    progress.stage("rendering", sum(chunk.num_frames for chunk in missing.values()), "frames")
    try:
        for segment in executor.render(job, tasks(), progress.advance):
            segments[segment.chunk_id] = segment
    except AshaError as error:
        raise _with_state(error, len(segments), manifest) from error
    return tuple(segments[chunk.chunk_id] for chunk in manifest.chunks), num_reused


def _with_state(error: AshaError, num_done: int, manifest: Manifest) -> AshaError:
    if num_done == 0:
        return error
    kept = f"{num_done} of {len(manifest.chunks)} chunks are kept; the same command goes on"
    return FarmError(f"{error}\n{kept}")


def _with_absolute_paths(spec: RenderSpec) -> RenderSpec:
    places = {name: absolute(getattr(spec, name)) for name in ("audio", "model", "output")}
    motion, features, run = spec.motion, spec.features, spec.run
    if motion.keyframes:
        motion = motion.model_copy(update={"keyframes": absolute(motion.keyframes)})
    if features.model_dir:
        features = features.model_copy(update={"model_dir": absolute(features.model_dir)})
    if run.work:
        run = run.model_copy(update={"work": absolute(run.work)})
    return spec.model_copy(update={**places, "motion": motion, "features": features, "run": run})


def _tell_oddities(analysis: Analysis, stem: str, progress: Progress) -> None:
    if analysis.num_replaced:
        progress.note(f"{analysis.num_replaced} damaged samples (NaN, infinite) count as silence")
    driving = analysis.features.stems.get(stem, analysis.features)
    if not len(driving.beat_frames):
        progress.note("no beats were found; the tour moves evenly")
