"""`analyze` and `path`: a track to a features file, features to the latents of a render."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asha_ray.audio.decode import load_audio
from asha_ray.audio.features_file import read_features, write_features
from asha_ray.errors import FeaturesError
from asha_ray.farm.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.models import load_keyframes, local_model
from asha_ray.farm.plan import absolute
from asha_ray.motion.seed import seed_path
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import FeatureSettings, MotionSettings
from asha_ray.storage import basename, storage_of
from asha_ray.vae.model_dir import KEYFRAMES, read_config, read_keyframes
from asha_ray.values import Features, FloatArray


def analyze(
    audio: str,
    out: str | None,
    plot: str | None,
    fps: str,
    settings: FeatureSettings,
    executor: str,
    progress: Progress | None = None,
) -> Features:
    """Analyse a track; write its features file and a picture of it where asked.

    Raises:
        AshaError: one of its kinds; nothing is written then.
    """
    progress = progress or NullProgress()
    for target in (out, plot):
        if target is not None:
            storage_of(target).check_writable(target)
    job = AnalysisJob(
        audio=absolute(audio),
        fps=fps,
        decay_time=settings.decay_time,
        decay_rate=settings.decay_rate,
        decay_shape=settings.decay_shape,
    )
    progress.stage("listening")
    analysis = _run(job, executor)
    if analysis.num_replaced:
        progress.note(f"{analysis.num_replaced} damaged samples (NaN, infinite) count as silence")
    features = analysis.features
    if out is not None:
        _put(out, lambda path: write_features(features, path))
    if plot is not None:
        progress.stage("drawing")
        _plot(job.audio, features, plot)
    return features


def path(
    features: str | Features,
    model: str,
    out: str | None,
    motion: MotionSettings,
    seed: int,
) -> FloatArray:
    """The latents `[n, L]` float32 that would be rendered for these features.

    Raises:
        AshaError: one of its kinds; nothing is written then.
    """
    if out is not None:
        storage_of(out).check_writable(out)
    if isinstance(features, str):
        uri = features
        with storage_of(uri).local_copy(uri) as local:
            if local.is_dir():
                raise FeaturesError(f"reading features {uri}: it is a folder; give a .npz file")
            features = read_features(local, uri)
    with local_model(model) as folder:
        latent_dim = read_config(folder, model)[0].latent_dim
        keyframes = (
            load_keyframes(motion.keyframes, latent_dim)
            if motion.keyframes
            else read_keyframes(folder / KEYFRAMES, latent_dim, model)
        )
    linear = motion.name == "seed-linear"
    tour = seed_path(
        keyframes,
        features.decay_linear if linear else features.decay_exponential,
        features.fps,
        seed=seed,
        keyframe_gap=motion.keyframe_gap,
        min_factor=motion.min_factor,
    )
    latents = tour.latents(0, tour.num_frames)
    if out is not None:
        _put(out, lambda local: _save_array(local, latents))
    return latents


def _run(job: AnalysisJob, executor: str) -> Analysis:
    if executor == "serial":
        return analyze_uri(job)
    from asha_ray.farm.ray_executor import RayExecutor

    with RayExecutor() as farm:
        return farm.analyze(job, None)


def _plot(audio: str, features: Features, out: str) -> None:
    from asha_ray.audio.plot import plot_features

    with storage_of(audio).local_copy(audio) as local:
        clip = load_audio(local)
    _put(out, lambda path: plot_features(clip, features, path, basename(audio)))


def _save_array(local: Path, array: FloatArray) -> None:
    with local.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _put(uri: str, write: Callable[[Path], None]) -> None:
    """Let `write` make a local file, then put it at `uri`, whole."""
    with tempfile.TemporaryDirectory(prefix="asha-") as folder:
        local = Path(folder) / "file"
        write(local)
        storage_of(uri).upload(local, uri)
