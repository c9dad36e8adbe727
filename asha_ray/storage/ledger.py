"""The ledger of an archive: one small record for each show, and what makes reading them quick.

All lies in `.ledger` of the archive's output: `shows/<show_id>.json` is a show's record, written
when the show has ended in one way or another, `names/<hash>.json` says which show has an output's
name, `runs/<run>/` holds each run's heartbeat, events and log, `archive.json` what was asked for
last, and `index.parquet` all records in one file, as they were when a run last wrote it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ShowState = Literal["done", "failed", "parked", "forgotten"]


@dataclass(frozen=True)
class ShowRecord:
    """How a show has ended.

    Attributes:
        show_id: hash of its key.
        state: `done`; `failed`, to be tried again by itself; `parked`, to be tried again when a
            person says so or the show has changed; `forgotten` for good, with nothing else known.
        key: its path below the source.
        source: what its sound file was: bytes and version.
        settings: digest of all that its settings may have come from.
        time: when this was written, in UTC.
        attempts: how often it was tried since it or its settings last changed.
        reason: why it failed, and what to do.
        show: the name of the series that it belongs to.
        title: of the recording.
        artist: whose it is.
        album: what it is a part of.
        date: when it was on air, or empty.
        source_bytes: of the sound file.
        duration_s: of the sound.
        tempo: beats per minute.
        loudness_lufs: integrated loudness (EBU R 128); None where it was not measured.
        sections: seconds at which something new begins.
        chapters: `[seconds, title]` of each.
        output: the video's path below the archive's output.
        files: all that was written for it, likewise; the video is one of them.
        work: the work root that its segments are in.
        render_id: its render in the work root.
        frames: in the video.
        fps: as `60` or `30000/1001`.
        size: width and height.
        chunks: of its render.
        reused_chunks: of these, those that were there already.
        digests: sha256 of audio, model, features and keyframes, and of the `video`.
        quality: what the check of the video found; see `Quality`.
        render_s: seconds of workers that rendering took, in all.
        wall_s: seconds from its beginning to its end.
    """

    show_id: str
    state: ShowState
    key: str = ""
    source: str = ""
    settings: str = ""
    time: str = ""
    attempts: int = 0
    reason: str = ""
    show: str = ""
    title: str = ""
    artist: str = ""
    album: str = ""
    date: str = ""
    source_bytes: int = 0
    duration_s: float = 0.0
    tempo: float = 0.0
    loudness_lufs: float | None = None
    sections: tuple[float, ...] = ()
    chapters: tuple[tuple[float, str], ...] = ()
    output: str = ""
    files: tuple[str, ...] = ()
    work: str = ""
    render_id: str = ""
    frames: int = 0
    fps: str = ""
    size: tuple[int, int] = (0, 0)
    chunks: int = 0
    reused_chunks: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    render_s: float = 0.0
    wall_s: float = 0.0
