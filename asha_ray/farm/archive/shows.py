"""Shows in hand: their chunks in one queue for all workers, and what is known of each."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from asha_ray.farm.archive.hear import Heard
from asha_ray.farm.archive.todo import Todo
from asha_ray.farm.rendering.plan import Plan
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob
from asha_ray.spec import RenderSpec
from asha_ray.values import Chunk, Segment
from asha_ray.video.batches import chunk_latents


@dataclass(frozen=True)
class Sounding:
    """What a show's record tells of its sound; the curves themselves are not kept."""

    tempo: float
    sections: tuple[float, ...]
    num_replaced: int


@dataclass
class Show:
    """A show between its plan and its place.

    Attributes:
        todo: what was asked for.
        began: when it was begun, by the monotonic clock.
        heard: its tags and settings.
        sounding: what its sound is like.
        spec: its render.
        plan: likewise.
        job: what workers must know of it.
        name: of its output, without a suffix.
        claim: under which that name is held.
        training: how its model was learned, for the video's record.
        segments: what is there of it.
        reused: chunks that were there before.
        missing: chunks that are not there yet.
        render_s: seconds of workers that it took.
        num_rounds: how often its segments have proved damaged.
    """

    todo: Todo
    began: float
    heard: Heard
    sounding: Sounding
    spec: RenderSpec
    plan: Plan
    job: WorkerJob
    name: str
    claim: str
    training: Mapping[str, Any] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    reused: int = 0
    missing: set[str] = field(default_factory=set)
    render_s: float = 0.0
    num_rounds: int = 0

    @property
    def show_id(self) -> str:
        """Of the show."""
        return self.todo.show_id

    @property
    def num_frames(self) -> int:
        """Of its video."""
        return self.plan.manifest.num_frames

    def ordered_segments(self) -> tuple[Segment, ...]:
        """Its segments, as they follow each other."""
        return tuple(self.segments[chunk.chunk_id] for chunk in self.plan.manifest.chunks)


class Shows:
    """The shows in hand. Safe to be used by several threads.

    A chunk that two shows have in common (silence looks the same everywhere) is rendered once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Show] = {}
        self._queue: dict[str, None] = {}
        self._in_hand: set[str] = set()
        self._wanted: dict[str, list[tuple[Show, Chunk]]] = {}
        self._num_given = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def num_waiting(self) -> int:
        """Chunks that nobody has begun."""
        return len(self._queue)

    @property
    def num_frames(self) -> int:
        """Of all their videos."""
        with self._lock:
            return sum(show.num_frames for show in self._open.values())

    def keys(self) -> list[str]:
        """What they are called in the archive."""
        with self._lock:
            return [show.todo.source.key for show in self._open.values()]

    def add(self, show: Show) -> bool:
        """Take a show in, or more of its chunks; whether something of it is missing."""
        with self._lock:
            self._open[show.show_id] = show
            chunks = {chunk.chunk_id: chunk for chunk in show.plan.manifest.chunks}  # twins once
            show.missing = {key for key in chunks if key not in show.segments}
            for key, chunk in chunks.items():
                if key in show.missing:
                    self._want(show, chunk)
            return bool(show.missing)

    def _want(self, show: Show, chunk: Chunk) -> None:
        wanting = self._wanted.setdefault(chunk.chunk_id, [])
        wanting.append((show, chunk))
        if chunk.chunk_id not in self._in_hand:
            self._queue[chunk.chunk_id] = None

    def next_task(self) -> ChunkTask | None:
        """The next chunk to render."""
        with self._lock:
            chunk_id = next(iter(self._queue), None)
            if chunk_id is None:
                return None
            del self._queue[chunk_id]
            self._in_hand.add(chunk_id)
            show, chunk = self._wanted[chunk_id][0]
            self._num_given += 1
            # Numbers are of the whole archive: a worker is asked to give up a chunk by its number.
            chunk = replace(chunk, index=self._num_given)
        latents = chunk_latents(show.plan.path, chunk, show.job.numerics.batch_size)
        return ChunkTask(chunk, latents, job=show.job)

    def hear_segment(self, segment: Segment) -> list[Show]:
        """A chunk is there; the shows of which nothing is missing any more."""
        with self._lock:
            self._in_hand.discard(segment.chunk_id)
            complete = []
            for number, (show, _) in enumerate(self._wanted.pop(segment.chunk_id, ())):
                show.segments[segment.chunk_id] = segment
                show.missing.discard(segment.chunk_id)
                show.render_s += 0.0 if number else segment.seconds
                if not show.missing:
                    complete.append(show)
            return complete

    def wanting(self, chunk_id: str) -> list[Show]:
        """The shows that wait for a chunk; nobody waits for it from now on."""
        with self._lock:
            self._in_hand.discard(chunk_id)
            self._queue.pop(chunk_id, None)
            return [show for show, _ in self._wanted.pop(chunk_id, ())]

    def drop(self, show: Show) -> None:
        """A show has ended, in one way or another."""
        with self._lock:
            self._open.pop(show.show_id, None)
            for chunk_id in show.missing:
                others = [item for item in self._wanted.get(chunk_id, ()) if item[0] is not show]
                if others:
                    self._wanted[chunk_id] = others
                else:
                    self._wanted.pop(chunk_id, None)
                    self._queue.pop(chunk_id, None)

    def forget_segments(self, show: Show, chunk_ids: Iterable[str]) -> None:
        """Let damaged segments of a show be rendered again."""
        for chunk_id in chunk_ids:
            show.segments.pop(chunk_id, None)
        self.add(show)
