"""Workers as a scheduler sees them: a crew, and what is heard of it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from asha_ray.errors import AshaError
from asha_ray.farm.rendering.task import ChunkTask
from asha_ray.values import Segment

Worker = Hashable


@dataclass(frozen=True)
class Ready:
    """A worker can take chunks now; `name` is what records call it."""

    worker: Worker
    name: str


@dataclass(frozen=True)
class Refused:
    """A worker must not render, and why."""

    worker: Worker
    reason: str


@dataclass(frozen=True)
class Made:
    """A worker has made so many more frames of its chunk."""

    worker: Worker
    num_frames: int


@dataclass(frozen=True)
class Done:
    """A worker has committed its chunk's segment."""

    worker: Worker
    segment: Segment


@dataclass(frozen=True)
class Failed:
    """A worker's chunk failed; the worker itself goes on."""

    worker: Worker
    error: AshaError


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and why; `blameless` where its whole node is gone or was leaving."""

    worker: Worker
    reason: str
    blameless: bool = False


Event = Ready | Refused | Made | Done | Failed | Lost


class Crew(Protocol):
    """Workers, as a scheduler sees them."""

    def room(self, most: int | None) -> int | None:
        """How many workers there should be now; None where nobody can say, and nothing changes.

        Args:
            most: workers that would have something to do; None where that is not known.
        """

    def num_places(self) -> int:
        """How many workers there could be on all that is there, whoever has it now."""

    def start(self) -> Worker:
        """Ask for one more; it is `Ready`, `Refused` or `Lost` later."""

    def give(self, worker: Worker, task: ChunkTask) -> None:
        """Hand a chunk to a ready worker; it is `Done` or `Failed`, or the worker `Lost`, later."""

    def take_back(self, worker: Worker) -> None:
        """Ask a worker to give up its chunk; it answers as to any chunk, and soon."""

    def end(self, worker: Worker) -> None:
        """Let a worker go; nothing is heard of it any more."""

    def leaving(self) -> Mapping[Worker, float]:
        """Workers whose node is going away, with the seconds they still have."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened, or nothing after so many seconds."""
