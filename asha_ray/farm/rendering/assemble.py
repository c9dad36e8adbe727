"""The last stage: segments and sound to the finished video, checked before it appears."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asha_ray import ffmpeg
from asha_ray.audio.decode import heard_blocks
from asha_ray.errors import EncodeError, SegmentError
from asha_ray.faults import reach
from asha_ray.scratch import scratch_folder
from asha_ray.storage import storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import file_digest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Manifest, Segment
from asha_ray.video.probe import VideoReport, probe
from asha_ray.video.sound import encode_audio
from asha_ray.video.stitch import stitch

RECORD_VERSION = 1


@dataclass(frozen=True)
class AssemblyJob:
    """What is joined, and where it goes."""

    manifest: Manifest
    segments: tuple[Segment, ...]
    audio: str
    output: str
    work: str
    model_summary: dict[str, Any]


def assemble(job: AssemblyJob) -> VideoReport:
    """Join a render's segments and its sound, check the result, and put it in its place.

    Raises:
        EncodeError: if a segment or the result is not what the plan says; nothing appears then.
        StorageError: if the output cannot be written.
    """
    manifest = job.manifest
    # Beside a local output the last step is a rename on one disk.
    folder_hint = None if is_s3(job.output) else Path(job.output).absolute().parent
    if folder_hint:
        folder_hint.mkdir(parents=True, exist_ok=True)
    with scratch_folder("video", folder_hint) as folder:
        video, sound = folder / "video.mp4", folder / "sound.m4a"
        with storage_of(job.audio).local_copy(job.audio) as audio:
            start_s = float(manifest.start / manifest.fps)
            encode_audio(heard_blocks(audio, start_s, float(manifest.duration_s)), sound)
        num_frames = _join(job, folder, sound, video)
        report = probe(video, decode=False)
        _check(report, manifest, num_frames)
        reach("joined")
        record = output_record(job, report, video)
        # A video without its record is unfinished; an old record must not vouch for a new video.
        storage_of(job.output).delete(f"{job.output}.json")
        reach("forgotten")
        _publish(video, job.output)
        reach("published")
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    storage_of(job.output).write(f"{job.output}.json", text.encode())
    reach("finished")
    return report


def _join(job: AssemblyJob, folder: Path, sound: Path, video: Path) -> int:
    """Stitch a render's segments; returns the number of frames.

    Raises:
        SegmentError: naming all whose content is not what their records say.
    """
    reader = _SegmentReader(job, folder / "segment.mp4")
    try:
        return stitch(iter(reader), sound, video, job.manifest.fps)
    except SegmentError as error:
        if error.chunk_ids:
            raise
        raise SegmentError(str(error), reader.latest) from error


def output_record(job: AssemblyJob, report: VideoReport, video: Path) -> dict[str, Any]:
    """What stands beside a finished video: what made it, and what it is."""
    manifest = job.manifest
    return {
        "version": RECORD_VERSION,
        "render_id": manifest.render_id,
        "sha256": file_digest(video),
        "bytes": video.stat().st_size,
        "frames": report.frames,
        "fps": str(manifest.fps),
        "size": list(manifest.size),
        "video_duration_s": float(report.video_duration_s),
        "audio_duration_s": float(report.audio_duration_s or 0),
        "ffmpeg": ffmpeg.version(),
        "spec": dict(manifest.spec),
        "digests": dict(manifest.digests),
        "model": job.model_summary,
        "work": job.work,
    }


class _SegmentReader:
    """Segments one after the other, as a local file and the frames it must have."""

    def __init__(self, job: AssemblyJob, path: Path) -> None:
        self._segments, self._path = job.segments, path
        self._work = WorkRoot(job.work)
        self.latest = ""

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        for index, segment in enumerate(self._segments):
            self.latest = segment.chunk_id
            try:
                self._work.fetch_segment(segment, self._path)
            except SegmentError as error:
                raise SegmentError(str(error), *self._damaged_from(index)) from error
            yield self._path, segment.num_frames
            if index == 0:
                reach("joining")

    def _damaged_from(self, index: int) -> list[str]:
        """All that are damaged from here on: they are made anew together, not one by one."""
        damaged = []
        for segment in self._segments[index:]:
            try:
                self._work.fetch_segment(segment, self._path)
            except SegmentError:
                damaged.append(segment.chunk_id)
        return damaged


def _check(report: VideoReport, manifest: Manifest, num_frames: int) -> None:
    problems = report.problems()
    if num_frames != manifest.num_frames or report.frames != manifest.num_frames:
        problems.append(f"{report.frames} frames, not {manifest.num_frames}")
    if problems:
        raise EncodeError(f"checking the finished video: {'; '.join(problems)}; render it again")


def _publish(video: Path, output: str) -> None:
    if is_s3(output):
        storage_of(output).upload(video, output)
        return
    video.chmod(0o644)
    video.replace(output)
