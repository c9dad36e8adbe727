"""The work root: segments, features and renders, shared by all renders that name it.

A segment is there when its record is; the record is written after it and says what it must be.
"""

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from asha_ray.errors import NotFoundError, SegmentError
from asha_ray.scratch import sweep
from asha_ray.storage.base import Storage, is_s3, join, safe_name, storage_of
from asha_ray.storage.keys import file_digest
from asha_ray.storage.manifest import decode_manifest, encode_manifest
from asha_ray.values import Chunk, Manifest, Segment

FOLDERS = ("features", "renders", "segments", "stems")
MAX_RECORD_BYTES = 64 << 10
LOOKUPS_AT_ONCE = 16
"""Records that are asked for side by side; in a bucket each takes some 20 ms."""


class Found(NamedTuple):
    """What is there of a render.

    Attributes:
        segments: chunk id -> its finished segment.
        damaged: ids of chunks whose segment is not what its record says, or whose record is none.
    """

    segments: dict[str, Segment]
    damaged: list[str]


class WorkRoot:
    """The files of a work root, by what they are.

    Args:
        uri: a folder or prefix.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._storage: Storage = storage_of(uri)

    def segment_uri(self, chunk_id: str) -> str:
        """Where a chunk's segment lies."""
        return join(self.uri, "segments", f"{safe_name(chunk_id, 'chunk')}.mp4")

    def record_uri(self, chunk_id: str) -> str:
        """Where a segment's record lies."""
        return join(self.uri, "segments", f"{safe_name(chunk_id, 'chunk')}.json")

    def features_uri(self, key: str) -> str:
        """Where the features with this hash lie."""
        return join(self.uri, "features", f"{key}.npz")

    def features_note_uri(self, key: str) -> str:
        """Where it is noted what was wrong with the sound; written after the features."""
        return join(self.uri, "features", f"{key}.json")

    def render_uri(self, render_id: str) -> str:
        """The folder of all that is known of a render."""
        return join(self.uri, "renders", safe_name(render_id, "render"))

    def manifest_uri(self, render_id: str) -> str:
        """Where a render's manifest lies."""
        return join(self.render_uri(render_id), "render.json")

    def upload_segment(self, path: Path, segment: Segment) -> None:
        """Store a finished local segment. It is there for nobody before its record is."""
        self._storage.upload(path, self.segment_uri(segment.chunk_id))

    def write_record(self, segment: Segment) -> None:
        """Say that a segment is stored, and what it must be found as."""
        self._storage.write(self.record_uri(segment.chunk_id), _to_json(_record(segment)))

    def find_segments(self, chunks: Iterable[Chunk]) -> Found:
        """Look for the segments of chunks; their content is checked when it is read."""
        found = Found({}, [])
        with ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="asha-find") as threads:
            wanted = {chunk.chunk_id: chunk for chunk in chunks}
            for key, segment in zip(wanted, threads.map(self._find, wanted.values()), strict=True):
                if isinstance(segment, Segment):
                    found.segments[key] = segment
                elif segment is not None:
                    found.damaged.append(key)
        return found

    def _find(self, chunk: Chunk) -> Segment | str | None:
        """A chunk's segment, None where there is none, or what is wrong with it."""
        try:
            content = self._storage.read(self.record_uri(chunk.chunk_id))
        except NotFoundError:
            return None
        try:
            segment = _segment(chunk.chunk_id, content)
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            return "its record is none"
        if segment.num_frames != chunk.num_frames:
            return "it has other frames"
        if self._storage.size(self.segment_uri(chunk.chunk_id)) != segment.num_bytes:
            return "it has another size"
        return segment

    def fetch_segment(self, segment: Segment, path: Path) -> None:
        """Copy a segment to a local file and check it against its record.

        Raises:
            SegmentError: if it is not the file that was committed.
        """
        uri = self.segment_uri(segment.chunk_id)
        try:
            self._storage.download(uri, path)
        except NotFoundError as error:
            raise SegmentError(f"reading segment {uri}: it is gone", segment.chunk_id) from error
        if file_digest(path) != segment.sha256:
            raise SegmentError(
                f"reading segment {uri}: it has changed since it was rendered", segment.chunk_id
            )

    def forget_segment(self, chunk_id: str) -> None:
        """Delete a segment's record, so that it is there for nobody; its file is replaced later."""
        self._storage.delete(self.record_uri(chunk_id))

    def delete_segment(self, chunk_id: str) -> None:
        """Delete a segment: its record first, which would promise what is not there any more."""
        self.forget_segment(chunk_id)
        self._storage.delete(self.segment_uri(chunk_id))

    def delete_features(self, key: str) -> None:
        """Delete features: first the note, without which they are there for nobody."""
        self._storage.delete(self.features_note_uri(key))
        self._storage.delete(self.features_uri(key))

    def delete_render(self, render_id: str) -> None:
        """Delete all that is known of a render; last, when it was heard of, and what it needs."""
        folder = self.render_uri(render_id)
        last = (join(folder, "heartbeat.json"), self.manifest_uri(render_id))
        for entry in self._storage.list(folder):
            if entry.uri not in last:
                self._storage.delete(entry.uri)
        for uri in last:
            self._storage.delete(uri)
        remove_empty_folders(folder)

    def exists(self) -> bool:
        """Whether anything was ever kept here; a bucket forgets what it does not hold any more."""
        folders = [join(self.uri, name) for name in FOLDERS]
        if not is_s3(self.uri) and any(Path(folder).is_dir() for folder in folders):
            return True
        return any(next(self._storage.list(folder), None) for folder in folders)

    def write_manifest(self, manifest: Manifest) -> None:
        """Store a render's manifest."""
        self._storage.write(self.manifest_uri(manifest.render_id), encode_manifest(manifest))

    def read_manifest(self, render_id: str) -> Manifest:
        """A render's manifest.

        Raises:
            NotFoundError: if there is none.
            ManifestError: if it is damaged or too new.
        """
        uri = self.manifest_uri(render_id)
        return decode_manifest(self._storage.read(uri), uri)


def sweep_work(uri: str) -> int:
    """Delete what killed processes have left half written in a local work root; how much it was."""
    if is_s3(uri):  # what is half uploaded is nowhere
        return 0
    return sweep(*(Path(folder) for folder, _, _ in os.walk(uri)))


def remove_empty_folders(uri: str) -> None:
    """Remove a local folder and those below it, as far as no file lies in them."""
    if is_s3(uri):  # where a folder is only a part of names
        return
    for name, _, _ in os.walk(uri, topdown=False):
        with suppress(OSError):  # it is not empty
            Path(name).rmdir()


def _record(segment: Segment) -> dict[str, Any]:
    return {
        "sha256": segment.sha256,
        "bytes": segment.num_bytes,
        "frames": segment.num_frames,
        "seconds": round(segment.seconds, 3),
        "worker": segment.worker,
    }


def _segment(chunk_id: str, content: bytes) -> Segment:
    if len(content) > MAX_RECORD_BYTES:
        raise ValueError("no record is so long")
    data = json.loads(content)
    return Segment(
        chunk_id=chunk_id,
        sha256=str(data["sha256"]),
        num_bytes=int(data["bytes"]),
        num_frames=int(data["frames"]),
        seconds=float(data["seconds"]),
        worker=str(data["worker"])[:200],
    )


def _to_json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
