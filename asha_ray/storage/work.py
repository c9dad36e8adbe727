"""The work root: segments, features and renders, shared by all renders that name it.

A segment is there when its record is; the record is written after it and says what it must be.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asha_ray.errors import StorageError
from asha_ray.storage.base import Storage, join, storage_of
from asha_ray.storage.keys import file_digest
from asha_ray.values import Manifest, Segment

MANIFEST_VERSION = 1


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
        return join(self.uri, "segments", f"{chunk_id}.mp4")

    def features_uri(self, key: str) -> str:
        """Where the features with this hash lie."""
        return join(self.uri, "features", f"{key}.npz")

    def features_note_uri(self, key: str) -> str:
        """Where it is noted what was wrong with the sound; written after the features."""
        return join(self.uri, "features", f"{key}.json")

    def manifest_uri(self, render_id: str) -> str:
        """Where a render's manifest lies."""
        return join(self.uri, "renders", render_id, "render.json")

    def commit_segment(self, path: Path, chunk_id: str, **measured: Any) -> Segment:
        """Store a finished local segment, then its record."""
        segment = Segment(
            chunk_id=chunk_id,
            sha256=file_digest(path),
            num_bytes=path.stat().st_size,
            **measured,
        )
        self._storage.upload(path, self.segment_uri(chunk_id))
        self._storage.write(self._record_uri(chunk_id), _to_json(_record(segment)))
        return segment

    def find_segment(self, chunk_id: str) -> Segment | None:
        """A chunk's segment, if it is finished and its file is as its record says."""
        uri = self._record_uri(chunk_id)
        if self._storage.size(uri) is None:
            return None
        try:
            data = json.loads(self._storage.read(uri))
            segment = Segment(
                chunk_id=chunk_id,
                sha256=str(data["sha256"]),
                num_bytes=int(data["bytes"]),
                num_frames=int(data["frames"]),
                seconds=float(data["seconds"]),
                worker=str(data["worker"]),
            )
        except (ValueError, KeyError, TypeError):
            return None  # a torn record counts as none; the chunk is rendered again
        if self._storage.size(self.segment_uri(chunk_id)) != segment.num_bytes:
            return None
        return segment

    def fetch_segment(self, segment: Segment, path: Path) -> None:
        """Copy a segment to a local file and check it against its record.

        Raises:
            StorageError: if it is not the file that was committed.
        """
        uri = self.segment_uri(segment.chunk_id)
        self._storage.download(uri, path)
        if file_digest(path) != segment.sha256:
            self._storage.delete(self._record_uri(segment.chunk_id))
            raise StorageError(
                f"reading segment {uri}: it has changed since it was rendered; render again, "
                "and it alone is made anew"
            )

    def write_manifest(self, manifest: Manifest) -> None:
        """Store a render's manifest."""
        self._storage.write(self.manifest_uri(manifest.render_id), _to_json(to_plain(manifest)))

    def _record_uri(self, chunk_id: str) -> str:
        return join(self.uri, "segments", f"{chunk_id}.json")


def to_plain(manifest: Manifest) -> dict[str, Any]:
    """A manifest as plain data."""
    return {
        "version": MANIFEST_VERSION,
        "render_id": manifest.render_id,
        "spec": manifest.spec,
        "digests": manifest.digests,
        "fps": str(manifest.fps),
        "size": list(manifest.size),
        "numerics": asdict(manifest.numerics),
        "encoder": asdict(manifest.encoder),
        "start": manifest.start,
        "frames": manifest.num_frames,
        "duration_s": str(manifest.duration_s),
        "chunks": [[chunk.start, chunk.stop, chunk.chunk_id] for chunk in manifest.chunks],
    }


def _record(segment: Segment) -> dict[str, Any]:
    return {
        "sha256": segment.sha256,
        "bytes": segment.num_bytes,
        "frames": segment.num_frames,
        "seconds": round(segment.seconds, 3),
        "worker": segment.worker,
    }


def _to_json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
