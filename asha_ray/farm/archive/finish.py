"""The end of a show: joined, looked at, given a poster, and put in its place."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asha_ray.audio.tags import read_tags
from asha_ray.errors import EncodeError, JobError, VideoError
from asha_ray.farm.rendering.assemble import AssemblyJob, found_there, joined, publish
from asha_ray.progress import Progress
from asha_ray.scratch import scratch_folder, sweep
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import file_digest
from asha_ray.storage.ledger import Ledger, thumbnail_uri
from asha_ray.video.poster import poster_and_strip, thumbnail
from asha_ray.video.quality import Quality, check_quality


@dataclass(frozen=True)
class FinishJob:
    """A show whose segments are all there.

    Attributes:
        assembly: what is joined, and where it goes.
        archive: the archive's output.
        show_id: of the show.
        name: of its output below the archive's, without a suffix.
        claim: under which the name is held.
        fresh: whether what is there counts for nothing.
    """

    assembly: AssemblyJob
    archive: str
    show_id: str
    name: str
    claim: str
    fresh: bool = False


@dataclass(frozen=True)
class Finished:
    """What has become of a show.

    Attributes:
        files: that were written, below the archive's output.
        sha256: of the video.
        quality: what the check found, as plain data.
        loudness_lufs: of the sound.
    """

    files: tuple[str, ...]
    sha256: str
    quality: dict[str, Any]
    loudness_lufs: float | None


def finish_show(job: FinishJob, progress: Progress) -> Finished:
    """Join a show, check what came of it, and put it, its poster and its preview in their places.

    A video that is in its place already, since a driver was killed before it could say so, is
    checked and not joined again.

    Raises:
        SegmentError: if a segment is not what it should be.
        EncodeError: if the video does not play.
        JobError: if another show has taken the name meanwhile.
        StorageError: if something cannot be written.
    """
    progress.advance(0)
    if not is_s3(job.assembly.output):  # what a process that was killed has left there
        sweep(Path(job.assembly.output).parent)
    assembly = _with_artwork(job.assembly)
    job = replace(job, assembly=assembly)
    there = None if job.fresh else _found(job, progress)
    if there is not None:
        return there
    try:
        return _joined(job, progress)
    except _UnsoundCopyError:  # a copy keeps what is damaged in the original; encoding mends it
        return _joined(replace(job, assembly=replace(assembly, encode_sound=True)), progress)


def _found(job: FinishJob, progress: Progress) -> Finished | None:
    """A show whose video is there already; None if it is not, or not as it should be."""
    record = found_there(job.assembly)
    if record is None:
        return None
    with storage_of(job.assembly.output).local_copy(job.assembly.output) as video:
        try:
            quality = _checked(job, video)
        except (EncodeError, VideoError):
            return None
        if file_digest(video) != record["sha256"]:
            return None
        return _pictured(job, video, record, quality, progress)


class _UnsoundCopyError(EncodeError):
    """Sound that was copied does not decode."""


def _joined(job: FinishJob, progress: Progress) -> Finished:
    with joined(job.assembly) as made:
        progress.advance(0)
        quality = _checked(job, made.video)
        if not quality.plays and str(made.record["sound"]).startswith("copied"):
            raise _UnsoundCopyError(f"checking {job.assembly.output}: {quality.problems()[0]}")
        finished = _pictured(job, made.video, made.record, quality, progress)
        publish(job.assembly, made)
        return finished


def _checked(job: FinishJob, video: Path) -> Quality:
    """All of a video looked at.

    Raises:
        EncodeError: if frames of it do not decode.
    """
    quality = check_quality(video, duration_s=float(job.assembly.manifest.duration_s))
    num_frames = job.assembly.manifest.num_frames
    if quality.decoded != num_frames:
        raise EncodeError(
            f"checking {job.assembly.output}: {quality.decoded} of {num_frames} frames decode; it "
            "is made again"
        )
    return quality


def _pictured(
    job: FinishJob, video: Path, record: dict[str, Any], quality: Quality, progress: Progress
) -> Finished:
    """Put a video's pictures in their places; what it is then."""
    with scratch_folder("poster") as folder:
        poster, strip = folder / "poster.jpg", folder / "strip.jpg"
        poster_and_strip(video, poster, strip, int(job.show_id, 16))
        small = thumbnail(poster)
        progress.advance(0)
        _require_name(job)
        names = {poster: f"{job.name}.jpg", strip: f"{job.name}.strip.jpg"}
        for path, name in names.items():
            uri = join(job.archive, name)
            storage_of(uri).upload(path, uri)
        storage_of(job.archive).write(thumbnail_uri(job.archive, job.show_id), small)
    return Finished(
        files=(f"{job.name}.mp4", f"{job.name}.mp4.json", *names.values()),
        sha256=str(record["sha256"]),
        quality={**asdict(quality), "problems": quality.problems()},
        loudness_lufs=quality.loudness_lufs,
    )


def _require_name(job: FinishJob) -> None:
    """Make sure that a show still has its output's name.

    Raises:
        JobError: if it has not.
    """
    if not Ledger(job.archive).holds_name(job.claim, job.show_id):
        raise JobError(
            f"writing {job.assembly.output}: another show has taken its name meanwhile; it gets "
            "another"
        )


def _with_artwork(assembly: AssemblyJob) -> AssemblyJob:
    """The same with the picture that lies in the sound file, which may be large."""
    with storage_of(assembly.audio).local_copy(assembly.audio) as path:
        return replace(assembly, tags=replace(assembly.tags, artwork=read_tags(Path(path)).artwork))
