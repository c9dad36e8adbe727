"""A crew of Ray actors, warm from the first chunk to the last.

No actor restarts by itself: what it was doing when it died is simply given to another, and the
scheduler asks for a new one where the cluster has room.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayTaskError

from asha_ray.farm.numerics import refusal
from asha_ray.farm.ray_runtime import draining_nodes, is_node_alive, own_error
from asha_ray.farm.scheduler import Done, Event, Failed, Lost, Made, Ready, Refused, Worker
from asha_ray.farm.worker import ChunkRenderer, ChunkTask, WorkerJob, worker_name
from asha_ray.scratch import sweep, system_folder
from asha_ray.values import Segment

STOP_S = 5.0
"""What a worker may take to put away a chunk that is not wanted any more."""
COUNT_S = 0.5
"""How often busy actors are asked for the frames they have made."""


@dataclass(frozen=True)
class Hello:
    """What an actor says of itself once its model is loaded: why it must not render, if so."""

    refusal: str
    name: str
    node: str


class RenderActor:
    """A chunk renderer in a process of its own, which tells how far it is while it works."""

    def __init__(self, job: WorkerJob) -> None:
        sweep(system_folder())  # what a killed worker has left on this node
        self._refusal = refusal(job.numerics, allow_mixed=job.allow_mixed)
        if not self._refusal:
            self._renderer = self._load(job)
        self._lock = threading.Lock()
        self._unreported = 0
        self._resting = threading.Event()
        self._resting.set()

    def _load(self, job: WorkerJob) -> Any:
        return ChunkRenderer(job)

    def ready(self) -> Hello:
        """Answers once the model is loaded."""
        return Hello(self._refusal, worker_name(), ray.get_runtime_context().get_node_id())

    def render(self, task: ChunkTask) -> Segment:
        """Render one chunk."""
        self._resting.clear()
        self.take_frames()
        try:
            segment: Segment = self._renderer.render(task, self._count)
            return segment
        finally:
            self._resting.set()

    def take_back(self, index: int) -> None:
        """Give up a chunk."""
        self._renderer.give_up(index)

    def stop(self) -> None:
        """Give up whatever is in hand, and return when its temporary files are gone."""
        self._renderer.give_up()
        self._resting.wait(STOP_S)

    def take_frames(self) -> int:
        """Frames made since the last call."""
        with self._lock:
            count, self._unreported = self._unreported, 0
        return count

    def _count(self, num_frames: int) -> None:
        with self._lock:
            self._unreported += num_frames


@dataclass
class _Actor:
    """An actor, as the crew knows it."""

    handle: Any
    node: str = ""
    index: int | None = None
    asked_for_frames: bool = False


Call = Literal["ready", "render", "frames"]


class RayCrew:
    """Actors on whatever nodes have room for them.

    Args:
        job: what they render.
        room: how many there should be, asked again and again as nodes come and go.
        resources: of each, as Ray's options.
        kind: their class.
    """

    def __init__(
        self,
        job: WorkerJob,
        room: Callable[[], int],
        resources: Mapping[str, float],
        kind: type[RenderActor] = RenderActor,
    ) -> None:
        self._job, self._room, self._kind = job, room, kind
        self._options = {"max_restarts": 0, "max_concurrency": 2, **resources}
        self._actors: dict[Worker, _Actor] = {}
        self._calls: dict[Any, tuple[Worker, Call]] = {}
        self._num_started = 0
        self._count_at = 0.0

    def room(self) -> int:
        """As the cluster is now."""
        return self._room()

    def start(self) -> Worker:
        """Ask Ray for an actor; where there is no room it waits for some."""
        self._num_started += 1
        worker = self._num_started
        handle = ray.remote(**self._options)(self._kind).remote(self._job)
        self._actors[worker] = _Actor(handle)
        self._calls[handle.ready.remote()] = worker, "ready"
        return worker

    def give(self, worker: Worker, task: ChunkTask) -> None:
        """Hand a chunk to an actor."""
        actor = self._actors[worker]
        actor.index = task.chunk.index
        self._calls[actor.handle.render.remote(task)] = worker, "render"

    def take_back(self, worker: Worker) -> None:
        """Ask an actor to give up its chunk."""
        actor = self._actors[worker]
        actor.handle.take_back.remote(actor.index)

    def end(self, worker: Worker) -> None:
        """Kill an actor that has nothing in hand."""
        actor = self._actors.pop(worker)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] != worker}
        ray.kill(actor.handle)

    def leaving(self) -> Mapping[Worker, float]:
        """Actors on nodes that are being drained."""
        draining = draining_nodes()
        return {
            worker: draining[actor.node]
            for worker, actor in self._actors.items()
            if actor.node in draining
        }

    def wait(self, timeout_s: float) -> list[Event]:
        """What actors answered."""
        self._ask_for_frames()
        references = list(self._calls)
        if not references:
            time.sleep(timeout_s)
            return []
        ray.wait(references, num_returns=1, timeout=timeout_s)
        # All that is there by now, or a large crew would be heard one by one.
        done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        events = [self._hear(reference) for reference in done if reference in self._calls]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """End all actors; those at work first put away what they have begun."""
        busy = [worker for worker, call in self._calls.values() if call == "render"]
        stops = [self._actors[worker].handle.stop.remote() for worker in busy]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors, self._calls = {}, {}

    def _ask_for_frames(self) -> None:
        now = time.monotonic()
        if now < self._count_at:
            return
        self._count_at = now + COUNT_S
        for worker, actor in self._actors.items():
            if actor.index is not None and not actor.asked_for_frames:
                actor.asked_for_frames = True
                self._calls[actor.handle.take_frames.remote()] = worker, "frames"

    def _hear(self, reference: Any) -> Event | None:
        worker, call = self._calls.pop(reference)
        actor = self._actors[worker]
        if call == "frames":
            actor.asked_for_frames = False
        if call == "render":
            actor.index = None
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if call == "ready":
                raise own_error(error) from error
            return Failed(worker, own_error(error)) if call == "render" else None
        except RayActorError as error:
            return self._lose(worker, error)
        match call:
            case "ready":
                actor.node = answer.node
                if answer.refusal:
                    return Refused(worker, answer.refusal)
                return Ready(worker, answer.name)
            case "render":
                return Done(worker, answer)
            case "frames":
                return Made(worker, answer)

    def _lose(self, worker: Worker, error: RayActorError) -> Lost:
        """An actor is gone: all its calls are answered by that."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, RayTaskError):  # it could not be made
            raise own_error(cause) from error
        actor = self._actors.pop(worker)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] != worker}
        reason = " ".join(str(error).split())[:300]
        gone = bool(actor.node) and not is_node_alive(actor.node)
        return Lost(worker, reason, blameless=gone or bool(getattr(error, "preempted", False)))
