"""`inspect`: what a finished video is, and whether it is what its record says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asha_ray.errors import AshaError, VideoError
from asha_ray.farm.listening.analysis import analysis_job, kept_features
from asha_ray.farm.models import load_files
from asha_ray.farm.rendering.plan import first_frame, keyframes_of, make_path
from asha_ray.spec import RenderSpec, build
from asha_ray.storage import storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import file_digest
from asha_ray.values import FloatArray
from asha_ray.video.probe import VideoReport, probe

MIN_DISTINCT = 0.9
MIN_CORRELATION = 0.6
MIN_GAIN_DB = 5.0
MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        report: what the file is.
        record: what stands beside it, None where nothing does.
        distinct_share: distinct frames / frames, None if not decoded.
        motion_correlation: between the change from frame to frame and the latent step, None
            where the model or the track that made it cannot be found.
        gain_db: how far the model's reconstructions beat the mean image, None if unknown.
        problems: what is off, a sentence each.
        remarks: what is worth knowing and no fault of the file.
    """

    report: VideoReport
    record: Mapping[str, Any] | None
    distinct_share: float | None
    motion_correlation: float | None
    gain_db: float | None
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def inspect(uri: str, *, decode: bool = True) -> Inspection:
    """Measure a finished video.

    Args:
        uri: a video, local or `s3://`.
        decode: whether to decode every frame.

    Raises:
        VideoError: if it is no video.
    """
    record = _read_record(uri)
    with storage_of(uri).local_copy(uri) as path:
        if path.is_dir():
            raise VideoError(f"inspecting {uri}: it is a folder; give a video")
        report = probe(path, decode=decode)
        problems = report.problems()
        if record is not None:
            if record.get("sha256") != file_digest(path):
                problems.append("its sha256 is not what its record says: it has been changed")
            if record.get("frames") != report.frames:
                problems.append(f"its record says {record.get('frames')!s:.40} frames")
    distinct = correlation = None
    if report.pictures:
        distinct = report.pictures.num_distinct / max(1, report.pictures.num_decoded)
        if record is not None:
            correlation = motion_correlation(
                record, report.pictures.difference, from_bucket=is_s3(uri)
            )
    gain = _gain_db(record)
    return Inspection(
        report=report,
        record=record,
        distinct_share=distinct,
        motion_correlation=correlation,
        gain_db=gain,
        problems=tuple(problems),
        remarks=tuple(_remarks(distinct, correlation, gain)),
    )


def motion_correlation(
    record: Mapping[str, Any], difference: FloatArray, *, from_bucket: bool = False
) -> float | None:
    """Pearson correlation of `difference [n - 1]` with the latent step that caused each.

    None where it is not defined, or where what made the video is not there any more. A record may
    be a stranger's, so nothing is measured or written for it, and the record of a local video
    leads to no bucket.
    """
    try:
        spec = build(RenderSpec, record["spec"])
        work = str(record["work"])
        places = (spec.audio, spec.model, work, spec.motion.keyframes, spec.features.model_dir)
        if not from_bucket and any(is_s3(place) for place in places if place):
            return None
        features = kept_features(analysis_job(spec.audio, spec.video.fps, spec.features), work)
        if features is None:
            return None
        files = load_files(spec.model, decoder_only=True)
        path = make_path(spec, features, keyframes_of(spec, files))
    except (AshaError, KeyError, TypeError):
        return None
    start = first_frame(spec, path.fps)
    latents = path.latents(start, start + len(difference) + 1)
    step = np.linalg.norm(np.diff(latents, axis=0), axis=1)
    if len(step) < 3 or step.std() == 0 or difference.std() == 0:
        return None
    return float(np.corrcoef(step, difference)[0, 1])


def _read_record(uri: str) -> dict[str, Any] | None:
    record_uri = f"{uri}.json"
    storage = storage_of(uri)
    size = storage.size(record_uri)
    if size is None or size > MAX_RECORD_BYTES:
        return None
    try:
        record = json.loads(storage.read(record_uri))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _gain_db(record: Mapping[str, Any] | None) -> float | None:
    try:
        training = (record or {})["model"]["training"]
        return float(training["reconstruction_psnr_db"]) - float(training["mean_image_psnr_db"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _remarks(distinct: float | None, correlation: float | None, gain_db: float | None) -> list[str]:
    remarks = []
    if distinct is not None and distinct < MIN_DISTINCT:
        remarks.append(f"only {distinct:.0%} of the frames are distinct: the picture stands still")
    if correlation is not None and correlation < MIN_CORRELATION:
        remarks.append(f"the picture follows the latent path only weakly ({correlation:.2f})")
    if gain_db is not None and gain_db < MIN_GAIN_DB:
        remarks.append(
            f"the model's reconstructions beat the mean image by {gain_db:.1f} dB only: "
            "train it longer"
        )
    return remarks
