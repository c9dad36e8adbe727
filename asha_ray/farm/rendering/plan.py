"""A spec and a track's features to a render's plan: path, chunks and their identities."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from asha_ray import ffmpeg
from asha_ray.errors import FeaturesError, ResourceError, SpecError
from asha_ray.farm.listening.analysis import Analysis
from asha_ray.farm.models import load_keyframes
from asha_ray.farm.rendering.survey import Survey, choose_codec
from asha_ray.farm.rendering.task import WorkerJob
from asha_ray.motion.family import family
from asha_ray.motion.seed import SeedPath, seed_path
from asha_ray.spec import MotionSettings, RenderSpec, parse_size
from asha_ray.storage import join, parent
from asha_ray.storage.keys import FORMAT_VERSION, array_digest, chunk_id, digest_of
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.values import (
    EncoderSettings,
    Features,
    FloatArray,
    LatentPath,
    Manifest,
    Numerics,
    Size,
    num_frames_of,
    plan_chunks,
)
from asha_ray.video.batches import chunk_latents, padded_range

ENCODER_THREADS = 8
"""Of every encoder on every machine: its output depends on them, and a render that was begun on one
machine or cluster must be able to go on upon another. On two cores eight cost nothing."""

PROCESS_BYTES, GPU_PROCESS_BYTES = 500 << 20, 1500 << 20
"""Of a worker with nothing loaded but its libraries: torch's alone, and those of a GPU beside."""
ENCODER_PICTURES = 100
"""In 4:2:0 that an encoder holds: what it looks ahead, what eight threads work at, references."""


@dataclass(frozen=True)
class Plan:
    """A render, ready to be worked on: its manifest, and the path its chunks are cut from."""

    manifest: Manifest
    path: LatentPath


def work_uri(spec: RenderSpec) -> str:
    """The work root: as given, or `.asha` beside the output."""
    return spec.run.work or join(parent(spec.output), ".asha")


def encoder_settings(spec: RenderSpec, codec: str | None = None) -> EncoderSettings:
    """How every segment of a render is encoded.

    Args:
        spec: quality and speed.
        codec: the encoder, where the spec leaves it to us.

    Raises:
        SpecError: if this ffmpeg has no such encoder.
    """
    video = spec.video
    codec = codec or video.codec
    if codec not in ffmpeg.encoders():
        raise SpecError(f"video.codec: this ffmpeg has no {codec}; choose libx264")
    return EncoderSettings(
        codec=codec,
        crf=video.crf,
        preset=video.preset,
        threads=ENCODER_THREADS,
        version=ffmpeg.version(),
    )


def video_size(spec: RenderSpec, image_size: Size) -> Size:
    """Width and height of the video: as asked, or the model's own less an odd line.

    Raises:
        SpecError: if a side would be 0.
    """
    if spec.video.size:
        return parse_size(spec.video.size)
    width, height = (side - side % 2 for side in image_size)
    if not width or not height:
        raise SpecError("video.size: the model's pictures are one pixel wide or high; give --size")
    return width, height


def worker_job(
    spec: RenderSpec,
    files: ModelFiles,
    found: Survey,
    cores: int,
    note: Callable[[str], None],
    numerics: Numerics | None = None,
) -> WorkerJob:
    """What could make two machines differ, chosen once for all of them.

    Args:
        spec: the render.
        files: the model.
        found: the machines that render.
        cores: of each worker.
        note: hears what was chosen, and why.
        numerics: how they decode; chosen here where None.

    Raises:
        SpecError: if the encoder that was asked for does not work there.
    """
    from asha_ray.farm.rendering.numerics import choose

    chosen = ""
    if numerics is None:
        numerics, chosen = choose(found.kind, files, keyframes_of(spec, files))
    codec, why = choose_codec(spec.video.codec, found)
    if codec in found.failures:
        raise SpecError(f"video.codec: {found.failures[codec]}; choose libx264, or auto")
    for told in (chosen, why):
        if told:
            note(told)
    return WorkerJob(
        model=spec.model,
        numerics=replace(numerics, torch_version=found.torch_version),
        encoder=encoder_settings(spec, codec),
        size=video_size(spec, files.architecture.image_size),
        fit=spec.video.fit,
        fps=Fraction(spec.video.fps),
        work=work_uri(spec),
        cores=cores,
        allow_mixed=spec.run.allow_mixed,
        fresh=spec.run.fresh,
    )


def fitting(job: WorkerJob, files: ModelFiles, found: Survey) -> WorkerJob:
    """A job with the memory that a worker takes for it, which there is.

    Raises:
        ResourceError: if there is not.
    """
    check_memory(files, job.numerics, found.free_bytes, job.num_decoders)
    return replace(job, memory_bytes=worker_bytes(files, job))


def check_memory(
    files: ModelFiles, numerics: Numerics, available: float, num_decoders: int = 1
) -> None:
    """Refuse to decode what a machine's memory cannot hold.

    Args:
        files: the model.
        numerics: how it decodes.
        available: bytes that are free on a machine that renders.
        num_decoders: beside one another.

    Raises:
        ResourceError: with the figures.
    """
    from asha_ray.vae.memory import decode_bytes

    needed = num_decoders * decode_bytes(files.architecture, numerics.batch_size)
    if numerics.device == "cpu" and needed > available:
        width, height = files.architecture.image_size
        raise ResourceError(
            f"decoding {num_decoders * numerics.batch_size} pictures of {width}x{height} at a time "
            "needs about "
            f"{needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free; use a "
            "machine with more memory or a smaller model"
        )


def worker_bytes(files: ModelFiles, job: WorkerJob) -> int:
    """Memory of the machine that one worker takes, in bytes, on the safe side.

    On a GPU, what decoding takes lies there; both devices have the encoder's pictures here.
    """
    from asha_ray.vae.memory import decode_bytes

    width, height = job.size
    encoding = ENCODER_PICTURES * width * height * 3 // 2
    if job.numerics.device != "cpu":
        return GPU_PROCESS_BYTES + encoding
    decoding = decode_bytes(files.architecture, job.numerics.batch_size)
    return PROCESS_BYTES + encoding + job.num_decoders * decoding


def make_plan(
    spec: RenderSpec,
    analysis: Analysis,
    files: ModelFiles,
    numerics: Numerics,
    encoder: EncoderSettings,
) -> Plan:
    """Plan a render.

    Raises:
        SpecError: if the range lies past the end of the track.
        ModelError: if there are no keyframes, or they do not fit the model.
    """
    fps = Fraction(spec.video.fps)
    keyframes = keyframes_of(spec, files)
    path = make_path(spec, analysis.features, keyframes)
    start, duration_s = rendered_range(spec, analysis.features.exact_duration_s, fps)
    num_frames = num_frames_of(duration_s, fps)
    size = video_size(spec, files.architecture.image_size)
    video = {"size": list(size), "fit": spec.video.fit, "fps": str(fps)}

    chunks = []
    for chunk in plan_chunks(start, num_frames, fps, spec.run.chunk_s):
        identity = chunk_id(
            chunk_latents(path, chunk, numerics.batch_size),
            chunk.start - padded_range(chunk, numerics.batch_size)[0],
            chunk.num_frames,
            model_digest=files.digest,
            numerics=numerics,
            encoder=encoder,
            video=video,
        )
        chunks.append(replace(chunk, chunk_id=identity))

    digests = {
        "audio": analysis.audio_digest,
        "features": analysis.features_digest,
        "keyframes": array_digest(keyframes),
        "model": files.digest,
    }
    resolved = spec.model_dump(mode="json", exclude={"run"})
    manifest = Manifest(
        render_id=_render_id(spec, digests, [chunk.chunk_id for chunk in chunks]),
        spec=resolved,
        digests=digests,
        fps=fps,
        size=size,
        numerics=numerics,
        encoder=encoder,
        start=start,
        num_frames=num_frames,
        duration_s=duration_s,
        chunks=tuple(chunks),
    )
    return Plan(manifest, path)


def make_path(spec: RenderSpec, features: Features, keyframes: FloatArray) -> SeedPath:
    """The latent path of a whole track, whatever range of it is rendered."""
    return latent_path(features, keyframes, spec.motion, stem=spec.features.stem, seed=spec.seed)


def latent_path(
    features: Features, keyframes: FloatArray, motion: MotionSettings, *, stem: str, seed: int
) -> SeedPath:
    """The path that a motion takes through keyframes `[num_keyframes, L]`, driven by a stem.

    Raises:
        FeaturesError: if the stem was not listened to.
        ModelError: if there are no keyframes.
    """
    driving = features if stem == "mix" else features.stems.get(stem)
    if driving is None:
        there = ", ".join(["mix", *features.stems])
        raise FeaturesError(
            f"making a path: the features hold no stem {stem} (they hold {there}); "
            f"analyze the track with --stem {stem}"
        )
    linear = motion.name == "seed-linear"
    return seed_path(
        keyframes,
        driving.decay_linear if linear else driving.decay_exponential,
        driving.fps,
        seed=seed,
        keyframe_gap=motion.keyframe_gap,
        min_factor=motion.min_factor,
    )


def keyframes_of(spec: RenderSpec, files: ModelFiles) -> FloatArray:
    """The keyframes `[num_keyframes, L]` that a render visits.

    They are those it names, or the model's; of them the family of its show, where it has one.
    """
    if spec.motion.keyframes is None:
        keyframes = files.keyframes
    else:
        keyframes = load_keyframes(spec.motion.keyframes, files.architecture.latent_dim)
    return keyframes if spec.show is None else family(keyframes, spec.show, spec.episode)


def first_frame(spec: RenderSpec, fps: Fraction) -> int:
    """The first frame that is rendered, counted from the start of the track."""
    return round(Fraction(str(spec.start)) * fps)


def rendered_range(spec: RenderSpec, track_s: Fraction, fps: Fraction) -> tuple[int, Fraction]:
    """First frame and exact length in seconds of what is rendered.

    Raises:
        SpecError: if it lies past the end of the track.
    """
    start = first_frame(spec, fps)
    rest = track_s - start / fps
    if rest <= 0:
        raise SpecError(
            f"start: {spec.start:g} s lies past the end of the track, "
            f"which is {float(track_s):.2f} s long"
        )
    wanted = rest if spec.duration is None else Fraction(str(spec.duration))
    return start, min(rest, wanted)


def _render_id(spec: RenderSpec, digests: Mapping[str, str], chunk_ids: list[str]) -> str:
    # Paths and where the work runs are no part of what a video is; chunk ids say the rest.
    places: Any = {"run": True, "audio": True, "model": True, "output": True}
    settings = spec.model_dump(mode="json", exclude=places, exclude_defaults=True)
    settings.get("motion", {}).pop("keyframes", None)
    settings.get("features", {}).pop("model_dir", None)
    return digest_of(
        {
            "format": FORMAT_VERSION,
            "settings": settings,
            "digests": dict(digests),
            "chunks": chunk_ids,
        }
    )[:40]
