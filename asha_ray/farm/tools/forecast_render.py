"""What one render would take; of a track that was listened to before, chunk by chunk."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from asha_ray.audio.duration import counted_duration
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.listening.analysis import analysis_job, kept_analysis
from asha_ray.farm.models import load_files
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.rendering.plan import (
    make_plan,
    rendered_range,
    video_size,
    work_uri,
    worker_job,
)
from asha_ray.farm.rendering.survey import survey
from asha_ray.farm.tools.forecast import (
    SOUND_BYTES_PER_S,
    Forecast,
    Known,
    fixed_stages,
    pace_for,
    priced,
    workers_of,
)
from asha_ray.farm.tools.pace import Pace, span_s
from asha_ray.spec import FeatureSettings, RenderSpec
from asha_ray.storage import storage_of
from asha_ray.storage.work import WorkRoot
from asha_ray.vae.generator import pick_device
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import Chunk, Segment, num_frames_of, plan_chunks


def plan_render(spec: RenderSpec, known: Known) -> Forecast:
    """What a render would take. Nothing is rendered, listened to, or written.

    Where the track's features are kept in the work root, the chunks are those that `render` would
    have, by name. Else the track's length is counted, and no chunk is known to be there.

    Raises:
        SpecError: if there is no rate for it, or it asks for what cannot be.
        AshaError: another of its kinds, where something that the render needs is not there.
    """
    spec = absolute_paths(spec)
    files = load_files(spec.model, decoder_only=True)
    size = video_size(spec, files.architecture.image_size)
    pace = pace_for(spec, files, size, known)
    work = _Work.of(spec, files)
    missing_frames = sum(chunk.num_frames for chunk in work.missing)
    frame_bytes = work.frame_bytes or pace.bits_per_pixel * size[0] * size[1] / 8
    workers, notes = workers_of(spec)
    stages = _stages(spec, work, workers, pace)
    forecast = Forecast(
        kind="render",
        what=spec.audio,
        shows=1,
        duration_s=work.duration_s,
        frames=work.num_frames,
        fps=spec.video.fps,
        size=size,
        chunks=len(work.chunks),
        reused_chunks=sum(chunk.chunk_id in work.segments for chunk in work.chunks),
        missing_frames=missing_frames,
        listened=work.listened,
        segment_bytes=round(frame_bytes * missing_frames),
        video_bytes=round(frame_bytes * work.num_frames + work.duration_s * SOUND_BYTES_PER_S),
        workers=workers,
        stages=stages,
        notes=(*notes, *_doubts(work, spec.features)),
    )
    held_s = workers * (stages["listening"] + stages["rendering"])
    return priced(forecast, pace, spec.run, held_s, known.prices)


def _stages(spec: RenderSpec, work: "_Work", workers: int, pace: Pace) -> dict[str, float]:
    machine = pace.machine
    to_hear_s = 0.0 if work.listened else float(work.track_s)
    return {
        **fixed_stages(spec, pace),
        "listening": to_hear_s / machine.listen if machine else 0.0,
        "rendering": span_s([chunk.num_frames for chunk in work.missing], workers, pace),
        "joining": work.duration_s / machine.join if machine else 0.0,
    }


def _doubts(work: "_Work", features: FeatureSettings) -> list[str]:
    if work.listened:
        return []
    doubts = [
        "the track was not listened to yet: its length is counted, and chunks that are there "
        "already are not known"
    ]
    if features.stem != "mix" or features.stems != "none":
        doubts.append("taking the track apart is not counted: bench measures no stems")
    return doubts


def _counted_s(audio: str) -> Fraction:
    with storage_of(audio).local_copy(audio) as path:
        return counted_duration(path)


@dataclass(frozen=True)
class _Work:
    """What there is to do of a render.

    Attributes:
        track_s: seconds of the whole track, which is listened to whatever is rendered of it.
        fps: frames per second.
        chunks: with their identities where it was listened to.
        segments: chunk id -> what is there.
        listened: whether the features are kept.
    """

    track_s: Fraction
    fps: Fraction
    chunks: tuple[Chunk, ...]
    segments: Mapping[str, Segment]
    listened: bool

    @classmethod
    def of(cls, spec: RenderSpec, files: ModelFiles) -> "_Work":
        work = work_uri(spec)
        analysis = kept_analysis(analysis_job(spec.audio, spec.video.fps, spec.features), work)
        track_s = analysis.features.exact_duration_s if analysis else _counted_s(spec.audio)
        fps = Fraction(spec.video.fps)
        start, duration_s = rendered_range(spec, track_s, fps)
        num_frames = num_frames_of(duration_s, fps)
        chunks = plan_chunks(start, num_frames, fps, spec.run.chunk_s)
        if analysis is None:
            return cls(track_s, fps, chunks, {}, False)
        # Where the device is elsewhere, what it is, and so what its chunks are named, is not known.
        if spec.run.device == "cuda" and pick_device() != "cuda":
            return cls(track_s, fps, chunks, {}, True)
        found = survey(spec.run.device, spec.video.codec)
        job = worker_job(spec, files, found, cpu_threads(), lambda _: None)
        chunks = make_plan(spec, analysis, files, job.numerics, job.encoder).manifest.chunks
        segments = {} if spec.run.fresh else WorkRoot(work).find_segments(chunks).segments
        return cls(track_s, fps, chunks, segments, True)

    @property
    def num_frames(self) -> int:
        """Of the video."""
        return sum(chunk.num_frames for chunk in self.chunks)

    @property
    def duration_s(self) -> float:
        """Of the video's picture."""
        return float(self.num_frames / self.fps)

    @property
    def missing(self) -> list[Chunk]:
        """Chunks that are yet to be rendered; twins once."""
        named = {chunk.chunk_id or str(chunk.index): chunk for chunk in self.chunks}
        return [chunk for key, chunk in named.items() if key not in self.segments]

    @property
    def frame_bytes(self) -> float:
        """Of those that are there; 0 where none is."""
        kept = self.segments.values()
        num_frames = sum(segment.num_frames for segment in kept)
        return sum(segment.num_bytes for segment in kept) / num_frames if num_frames else 0.0
