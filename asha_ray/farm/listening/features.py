"""`analyze` and `path`: a track to a features file, features to the latents of a render."""

from pathlib import Path

import numpy as np

from asha_ray.audio.decode import stream_audio
from asha_ray.audio.features_file import read_features, write_features
from asha_ray.errors import FeaturesError
from asha_ray.farm.listening.analysis import analysis_job
from asha_ray.farm.models import load_keyframes, local_model
from asha_ray.farm.places import absolute, kept_work_root, put
from asha_ray.farm.rendering.executor import executor_for
from asha_ray.farm.rendering.plan import latent_path
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import AnalyzeSettings, PathSettings
from asha_ray.storage import basename, storage_of
from asha_ray.vae.model_dir import KEYFRAMES, read_config, read_keyframes
from asha_ray.values import Features, FloatArray


def analyze(
    audio: str,
    out: str | None,
    plot: str | None,
    settings: AnalyzeSettings,
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
    work = settings.work and absolute(settings.work)
    job = analysis_job(absolute(audio), settings.fps, settings.features)
    progress.stage("listening", unit="s of sound")
    # Stems are written by whoever separates them, the rest by this process alone.
    beside = out or plot if job.separator else None
    with executor_for(settings.executor) as executor:
        analysis = executor.analyze(job, kept_work_root(work, beside), progress)
    if analysis.num_replaced:
        progress.note(f"{analysis.num_replaced} damaged samples (NaN, infinite) count as silence")
    features = analysis.features
    if out is not None:
        put(out, lambda path: write_features(features, path))
    if plot is not None:
        progress.stage("drawing")
        _plot(job.audio, features, plot)
    return features


def path(
    features: str | Features, model: str, out: str | None, settings: PathSettings
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
    motion = settings.motion
    with local_model(model) as folder:
        latent_dim = read_config(folder, model)[0].latent_dim
        keyframes = (
            load_keyframes(motion.keyframes, latent_dim)
            if motion.keyframes
            else read_keyframes(folder / KEYFRAMES, latent_dim, model)
        )
    tour = latent_path(features, keyframes, motion, stem=settings.stem, seed=settings.seed)
    latents = tour.latents(0, tour.num_frames)
    if out is not None:
        put(out, lambda local: _save_array(local, latents))
    return latents


def _plot(audio: str, features: Features, out: str) -> None:
    from asha_ray.audio.plot import measure_waveform, plot_features

    with storage_of(audio).local_copy(audio) as local:
        wave = measure_waveform(stream_audio(local))
    put(out, lambda path: plot_features(wave, features, path, basename(audio)))


def _save_array(local: Path, array: FloatArray) -> None:
    with local.open("wb") as file:
        np.save(file, array, allow_pickle=False)
