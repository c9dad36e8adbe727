"""Features of a track by uri, computed once and kept in a work root."""

import json
import tempfile
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from asha_ray.audio.decode import MAX_SAMPLE_RATE, load_audio
from asha_ray.audio.features import analyze_clip
from asha_ray.audio.features_file import VERSION, read_features, write_features
from asha_ray.storage import storage_of
from asha_ray.storage.keys import digest_of, file_digest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import AudioClip, Features


@dataclass(frozen=True)
class AnalysisJob:
    """What determines a track's features, beside its sound."""

    audio: str
    fps: str
    decay_time: float = 0.25
    decay_rate: float = 0.25
    decay_shape: str = "constant"


@dataclass(frozen=True)
class Analysis:
    """A track's features, and what a render must know of its sound.

    Attributes:
        features: at the video's frames.
        audio_digest: sha256 of the sound file.
        features_digest: of what determines the features.
        num_replaced: samples that were NaN or infinite and count as silence.
    """

    features: Features
    audio_digest: str
    features_digest: str
    num_replaced: int

    @property
    def duration_s(self) -> Fraction:
        """Length of the sound, exactly: a whole number of samples."""
        # A sample rate is a small denominator, so the float names one such fraction only.
        return Fraction(self.features.duration_s).limit_denominator(MAX_SAMPLE_RATE)


def analyze_uri(job: AnalysisJob, work: str | None = None) -> Analysis:
    """Analyse a track, or read what an earlier analysis of the same left in the work root.

    Args:
        job: the track and the settings.
        work: a work root, local or `s3://`; None keeps nothing.

    Raises:
        AudioError: if it cannot be decoded.
        NotFoundError: if there is nothing at its uri.
    """
    with storage_of(job.audio).local_copy(job.audio) as path:
        audio_digest = _digest(path)
        settings = {key: value for key, value in asdict(job).items() if key != "audio"}
        key = digest_of({"audio": audio_digest, "version": VERSION, **settings})[:40]
        if work is not None and (known := _read_kept(work, key)) is not None:
            features, num_replaced = known
        else:
            clip = load_audio(path)
            features, num_replaced = features_of(clip, job), clip.num_replaced
            if work is not None:
                _keep(work, key, features, num_replaced)
    return Analysis(features, audio_digest, key, num_replaced)


def features_of(clip: AudioClip, job: AnalysisJob) -> Features:
    """A decoded track's features with a job's settings."""
    return analyze_clip(
        clip,
        Fraction(job.fps),
        decay_time=job.decay_time,
        decay_rate=job.decay_rate,
        decay_shape=job.decay_shape,
    )


def _digest(path: Path) -> str:
    # The gate says what is wrong with a folder or an empty file; hashing comes first only for
    # real files.
    return file_digest(path) if path.is_file() else ""


def _read_kept(work: str, key: str) -> tuple[Features, int] | None:
    root = WorkRoot(work)
    uri, note_uri = root.features_uri(key), root.features_note_uri(key)
    storage = storage_of(work)
    if storage.size(uri) is None or storage.size(note_uri) is None:
        return None
    with storage.local_copy(uri) as path:
        return read_features(path, uri), int(json.loads(storage.read(note_uri))["num_replaced"])


def _keep(work: str, key: str, features: Features, num_replaced: int) -> None:
    root = WorkRoot(work)
    with tempfile.TemporaryDirectory(prefix="asha-") as folder:
        path = Path(folder) / "features.npz"
        write_features(features, path)
        storage_of(work).upload(path, root.features_uri(key))
    note = json.dumps({"num_replaced": num_replaced}).encode()
    storage_of(work).write(root.features_note_uri(key), note)
