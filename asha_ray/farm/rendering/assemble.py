"""The last stage: segments and sound to the finished video, checked before it appears."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asha_ray import ffmpeg
from asha_ray.audio.decode import heard_blocks
from asha_ray.errors import EncodeError, NotFoundError, SegmentError, VideoError
from asha_ray.faults import reach
from asha_ray.scratch import scratch_folder
from asha_ray.storage import storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import digest_of, file_digest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Manifest, Segment, Tags
from asha_ray.video.probe import VideoReport, probe
from asha_ray.video.sound import copy_audio, encode_audio
from asha_ray.video.stitch import stitch
from asha_ray.video.tags import tags_from

RECORD_VERSION = 1
MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class AssemblyJob:
    """What is joined, and where it goes.

    Attributes:
        manifest: of the render; its spec says whether the sound may come in as it is.
        segments: of all its chunks, in order.
        audio: the track.
        output: where the video goes.
        work: the work root that the segments are in.
        model_summary: what the record says of the model.
        tags: what the video says of itself; its chapters begin in the track.
        num_replaced: damaged samples of the track, which count as silence.
        encode_sound: whatever the spec says.
    """

    manifest: Manifest
    segments: tuple[Segment, ...]
    audio: str
    output: str
    work: str
    model_summary: dict[str, Any]
    tags: Tags = field(default_factory=Tags)
    num_replaced: int = 0
    encode_sound: bool = False

    @property
    def may_copy_sound(self) -> bool:
        """Whether the sound may come in as it is: if it is whole, `copy_audio` tells."""
        wanted = self.manifest.spec.get("video", {}).get("sound") == "copy"
        is_sound = self.manifest.start == 0 and not self.num_replaced
        return wanted and is_sound and not self.encode_sound


@dataclass(frozen=True)
class Joined:
    """A finished video that has not appeared yet.

    Attributes:
        video: a local file, which is gone when it has been published.
        report: what it was found to be.
        record: what will stand beside it.
    """

    video: Path
    report: VideoReport
    record: dict[str, Any]


def assemble(job: AssemblyJob) -> VideoReport:
    """Join a render's segments and its sound, check the result, and put it in its place.

    Raises:
        EncodeError: if a segment or the result is not what the plan says; nothing appears then.
        StorageError: if the output cannot be written.
    """
    with joined(job) as made:
        publish(job, made)
    return made.report


@contextmanager
def joined(job: AssemblyJob) -> Iterator[Joined]:
    """Join a render's segments and its sound into a temporary file, and check it.

    Raises:
        EncodeError: if a segment or the result is not what the plan says.
    """
    # Beside a local output the last step is a rename on one disk.
    folder_hint = None if is_s3(job.output) else Path(job.output).absolute().parent
    if folder_hint:
        folder_hint.mkdir(parents=True, exist_ok=True)
    with scratch_folder("video", folder_hint) as folder:
        video = folder / "video.mp4"
        # In a bucket each copy is a download of the whole track.
        with storage_of(job.audio).local_copy(job.audio) as audio:
            report, sound = _join_copied(job, audio, video) or _join_encoded(job, audio, video)
        reach("joined")
        yield Joined(video, report, output_record(job, report, video, sound))


def publish(job: AssemblyJob, made: Joined) -> None:
    """Put a joined video in its place, and its record beside it.

    Raises:
        StorageError: if the output cannot be written.
    """
    # A video without its record is unfinished; an old record must not vouch for a new video.
    storage_of(job.output).delete(f"{job.output}.json")
    reach("forgotten")
    _publish(made.video, job.output)
    reach("published")
    text = json.dumps(made.record, indent=1, ensure_ascii=False) + "\n"
    storage_of(job.output).write(f"{job.output}.json", text.encode())
    reach("finished")


def _join_copied(job: AssemblyJob, audio: Path, video: Path) -> tuple[VideoReport, str] | None:
    """Join segments with the sound as it is; None if it may not or cannot come in so."""
    sound = video.with_name("copied.m4a")
    if not job.may_copy_sound:
        return None
    try:
        codec = copy_audio(audio, sound, job.manifest.duration_s)
        num_frames = _join(job, sound, video)
        report = probe(video, decode=False)
    except SegmentError:
        raise
    except (EncodeError, VideoError):
        return None
    return None if _problems(report, job.manifest, num_frames) else (report, f"copied {codec}")


def _join_encoded(job: AssemblyJob, audio: Path, video: Path) -> tuple[VideoReport, str]:
    manifest, sound = job.manifest, video.with_name("sound.m4a")
    start_s = float(manifest.start / manifest.fps)
    encode_audio(heard_blocks(audio, start_s, float(manifest.duration_s)), sound)
    num_frames = _join(job, sound, video)
    report = probe(video, decode=False)
    if problems := _problems(report, manifest, num_frames):
        raise EncodeError(f"checking the finished video: {'; '.join(problems)}; render it again")
    return report, "aac"


def _join(job: AssemblyJob, sound: Path, video: Path) -> int:
    """Stitch a render's segments; returns the number of frames.

    Raises:
        SegmentError: naming all whose content is not what their records say.
    """
    reader = _SegmentReader(job, video.with_name("segment.mp4"))
    manifest = job.manifest
    tags = tags_from(job.tags, manifest.start / manifest.fps)
    duration_s = manifest.num_frames / manifest.fps
    try:
        return stitch(iter(reader), sound, video, manifest.fps, tags, duration_s)
    except SegmentError as error:
        if error.chunk_ids:
            raise
        raise SegmentError(str(error), reader.latest) from error


def output_record(job: AssemblyJob, report: VideoReport, video: Path, sound: str) -> dict[str, Any]:
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
        "sound": sound,
        "tags": tags_digest(job),
        "ffmpeg": ffmpeg.version(),
        "spec": dict(manifest.spec),
        "digests": dict(manifest.digests),
        "model": job.model_summary,
        "work": job.work,
    }


def tags_digest(job: AssemblyJob) -> str:
    """What changes when a video says something else of itself."""
    artwork = hashlib.sha256(job.tags.artwork).hexdigest()
    return digest_of({**asdict(job.tags), "artwork": artwork})


def found_there(job: AssemblyJob) -> dict[str, Any] | None:
    """The record of a video that is in its place already, just as it would be made; else None."""
    storage = storage_of(job.output)
    try:
        if (storage.size(f"{job.output}.json") or MAX_RECORD_BYTES) >= MAX_RECORD_BYTES:
            return None
        record = json.loads(storage.read(f"{job.output}.json"))
        wanted = (job.manifest.render_id, tags_digest(job), storage.size(job.output))
        same = (record["render_id"], record["tags"], record["bytes"]) == wanted
    except (NotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if same else None


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


def _problems(report: VideoReport, manifest: Manifest, num_frames: int) -> list[str]:
    problems = report.problems()
    if num_frames != manifest.num_frames or report.frames != manifest.num_frames:
        problems.append(f"{report.frames} frames, not {manifest.num_frames}")
    return problems


def _publish(video: Path, output: str) -> None:
    if is_s3(output):
        storage_of(output).upload(video, output)
        return
    video.chmod(0o644)
    video.replace(output)
