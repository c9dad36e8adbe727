"""A render from spec to finished video: the one place where the stages are put together."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asha_ray.errors import SegmentError
from asha_ray.farm.listening.analysis import Analysis, AnalysisJob, analysis_job
from asha_ray.farm.models import load_files
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.rendering.assemble import AssemblyJob
from asha_ray.farm.rendering.chunks import ChunkWork
from asha_ray.farm.rendering.executor import Executor, executor_for
from asha_ray.farm.rendering.plan import fitting, make_plan, work_uri, worker_job
from asha_ray.farm.rendering.space import check_space
from asha_ray.farm.rendering.task import WorkerJob
from asha_ray.faults import reach
from asha_ray.progress import NullProgress, Progress
from asha_ray.scratch import sweep, system_folder
from asha_ray.spec import RenderSpec
from asha_ray.storage import storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.journal import Journal
from asha_ray.storage.work import WorkRoot, sweep_work
from asha_ray.vae.model_dir import ModelFiles

MAX_ROUNDS = 3
"""How often segments may prove damaged before the render ends."""


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
    spec = absolute_paths(spec)
    storage_of(spec.output).check_writable(spec.output)
    job = analysis_job(spec.audio, spec.video.fps, spec.features)
    executor = executor_for(spec.run.executor, spec.run)
    files = load_files(spec.model, decoder_only=True)
    with _swept(spec), executor:
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
    progress.tell(worker=dict(executor.warm_up(worker_job)))

    progress.stage("listening", unit="s of sound")
    analysis = executor.analyze(job, work, progress)
    _tell_oddities(analysis, spec.features.stem, progress)
    plan = make_plan(spec, analysis, files, worker_job.numerics, worker_job.encoder)
    reach("listened")
    manifest = plan.manifest
    facts: dict[str, Any] = {
        "render_id": manifest.render_id,
        "output": spec.output,
        "frames": manifest.num_frames,
        "chunks": len(manifest.chunks),
    }
    progress.tell(**facts)
    root = WorkRoot(work)
    with Journal(root.render_uri(manifest.render_id), **facts) as journal:
        root.write_manifest(manifest)
        reach("planned")
        chunks = ChunkWork(executor, worker_job, plan, progress, journal)
        if not spec.run.fresh:
            chunks.find()
        check_space(manifest, chunks.num_missing_frames, work, spec.output)
        assembly = AssemblyJob(
            manifest=manifest,
            segments=(),
            audio=spec.audio,
            output=spec.output,
            work=work,
            model_summary={"uri": spec.model, "training": dict(files.training)},
            num_replaced=analysis.num_replaced,
        )
        _finish(executor, chunks, assembly, progress, journal)
    return RenderResult(
        output=spec.output,
        render_id=manifest.render_id,
        frames=manifest.num_frames,
        fps=str(manifest.fps),
        duration_s=float(manifest.num_frames / manifest.fps),
        chunks=len(manifest.chunks),
        reused_chunks=chunks.num_reused,
        wall_s=round(time.monotonic() - started, 3),
    )


def _worker_job(
    executor: Executor, spec: RenderSpec, files: ModelFiles, progress: Progress
) -> WorkerJob:
    """What the executor's workers must know, and what each takes of its machine."""
    found, cores = executor.survey(spec.video.codec, progress), executor.cores()
    return fitting(worker_job(spec, files, found, cores, progress.note), files, found)


def _finish(
    executor: Executor,
    chunks: ChunkWork,
    assembly: AssemblyJob,
    progress: Progress,
    journal: Journal,
) -> None:
    """Render what is missing and join it; what proves damaged while it is joined, once more."""
    for _ in range(MAX_ROUNDS):
        segments = chunks.finish()
        reach("rendered")
        progress.stage("stitching")
        journal.status(stage="stitching")
        journal.tell("stitching")
        try:
            executor.assemble(replace(assembly, segments=segments))
        except SegmentError as error:
            chunks.forget(error)
            damaged = error
        else:
            return
    raise damaged


@contextmanager
def _swept(spec: RenderSpec) -> Iterator[None]:
    """Put away what killed processes have left on this machine, before and after."""
    folders = [system_folder()]
    if not is_s3(spec.output):
        folders.append(Path(spec.output).parent)

    def put_away() -> None:
        sweep(*folders)
        sweep_work(work_uri(spec))

    put_away()
    yield
    put_away()


def _tell_oddities(analysis: Analysis, stem: str, progress: Progress) -> None:
    if analysis.num_replaced:
        progress.note(f"{analysis.num_replaced} damaged samples (NaN, infinite) count as silence")
    driving = analysis.features.stems.get(stem, analysis.features)
    if not len(driving.beat_frames):
        progress.note("no beats were found; the tour moves evenly")
