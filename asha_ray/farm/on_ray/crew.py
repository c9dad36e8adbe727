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
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from asha_ray.errors import InputError
from asha_ray.farm.models import cache_folder
from asha_ray.farm.on_ray.capacity import Resources
from asha_ray.farm.on_ray.runtime import (
    draining_nodes,
    is_head_there,
    is_node_alive,
    own_error,
    require_head,
)
from asha_ray.farm.rendering.crew import (
    Done,
    Event,
    Failed,
    Lost,
    Made,
    Ready,
    Refused,
    Worker,
)
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob, worker_name
from asha_ray.scratch import sweep, system_folder
from asha_ray.values import Segment

OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""What Ray's options call its resources."""
STOP_S = 5.0
"""What a worker may take to put away a chunk that is not wanted any more."""
COUNT_S = 0.5
"""How often busy actors are asked for the frames they have made."""
NODE_DIED = "its node has died"
"""Ray's words in the error of an actor that died with its node; nothing else tells it apart."""


@dataclass(frozen=True)
class Hello:
    """What an actor says of itself once its model is loaded: why it must not render, if so."""

    refusal: str
    name: str
    node: str


class RenderActor:
    """A chunk renderer in a process of its own, which tells how far it is while it works."""

    def __init__(self, job: WorkerJob) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._unreported = 0
        self._resting = threading.Event()
        self._resting.set()

    def _load(self, job: WorkerJob) -> Any:
        from asha_ray.farm.rendering.worker import ChunkRenderer

        return ChunkRenderer(job)

    def ready(self) -> Hello:
        """Answers once the model is loaded.

        Not in the constructor: Ray makes a text of an error there.
        """
        from asha_ray.farm.rendering.numerics import refusal

        sweep(system_folder(), cache_folder())  # what a killed worker has left on this node
        refused = refusal(self._job.numerics, allow_mixed=self._job.allow_mixed)
        if not refused:
            self._renderer = self._load(self._job)
        return Hello(refused, worker_name(), ray.get_runtime_context().get_node_id())

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
        room: how many there should be, asked again and again as nodes and other jobs come and go,
            with how many would have something to do; None where nobody can say.
        resources: of each, by Ray's names.
        kind: their class.
        places: how many the cluster's nodes would hold were they empty.
    """

    def __init__(
        self,
        job: WorkerJob,
        room: Callable[[int | None], int | None],
        resources: Resources,
        kind: type[RenderActor] = RenderActor,
        places: Callable[[], int] = lambda: 1,
    ) -> None:
        self._job, self._room, self._kind, self._places = job, room, kind, places
        named = {OPTIONS[kind]: amount for kind, amount in resources.items()}
        self._options = {"max_restarts": 0, "max_concurrency": 2, **named}
        self._actors: dict[Worker, _Actor] = {}
        self._calls: dict[Any, tuple[Worker, Call]] = {}
        self._num_started = 0
        self._count_at = 0.0

    def room(self, most: int | None) -> int | None:
        """As the cluster is now."""
        # Without a head no actor can be asked for.
        return self._room(most) if is_head_there() else None

    def num_places(self) -> int:
        """As the cluster is now."""
        return self._places()

    @property
    def num_ready(self) -> int:
        """Actors that have a place and their model, and may render."""
        return sum(bool(actor.node) for actor in self._actors.values())

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
        actor = self._actors.get(worker)
        # It may have answered already, or be gone, in the batch that is being heard.
        if actor is not None and actor.index is not None:
            actor.handle.take_back.remote(actor.index)

    def end(self, worker: Worker) -> None:
        """Kill an actor that has nothing in hand."""
        actor = self._actors.pop(worker, None)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] != worker}
        if actor is not None and is_head_there():  # else it would block; it ends with its driver
            ray.kill(actor.handle)

    def leaving(self) -> Mapping[Worker, float]:
        """Actors on nodes that are being drained."""
        draining = draining_nodes() if is_head_there() else {}
        return {
            worker: draining[actor.node]
            for worker, actor in self._actors.items()
            if actor.node in draining
        }

    def wait(self, timeout_s: float) -> list[Event]:
        """What actors answered.

        Raises:
            FarmError: if the cluster's head is gone.
        """
        self._look_around()
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
        if is_head_there():  # else each would block; actors end with their driver
            for actor in self._actors.values():
                ray.kill(actor.handle)
        self._actors, self._calls = {}, {}

    def _look_around(self) -> None:
        """Twice a second, not at every answer: see whether the head is there, and count frames."""
        now = time.monotonic()
        if now < self._count_at:
            return
        self._count_at = now + COUNT_S
        require_head()
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
            return self._hear_error(worker, call, error)
        except RayError as error:
            # A count that got lost says nothing of the chunk, whose own call is still awaited.
            if call == "frames" and isinstance(error, ActorUnavailableError):
                return None
            return self._lose(worker, error)
        match call:
            case "ready":
                refused = answer.refusal
                actor.node = "" if refused else answer.node
                return Refused(worker, refused) if refused else Ready(worker, answer.name)
            case "render":
                return Done(worker, answer)
            case "frames":
                return Made(worker, answer)

    def _hear_error(self, worker: Worker, call: Call, error: RayTaskError) -> Event | None:
        """What an actor raised, which itself lives on."""
        match call:
            case "ready":
                return self._could_not_start(worker, error)
            case "render":
                return Failed(worker, own_error(error))
            case "frames":
                return None

    def _could_not_start(self, worker: Worker, error: RayTaskError) -> Lost:
        """Its model could not be loaded: for a reason that another may not have, or hopeless.

        Raises:
            InputError: if it is the model itself.
        """
        own = own_error(error)
        if isinstance(own, InputError):
            raise own from error
        self.end(worker)
        return Lost(worker, str(own))

    def _lose(self, worker: Worker, error: RayError) -> Lost:
        """An actor is gone, or as good as gone: what it had in hand is lost, whatever Ray calls it.

        One that cannot be reached for a moment may come back, yet nobody can tell what became of
        its chunk, so it is ended and another does the chunk.
        """
        node = self._actors[worker].node
        self.end(worker)
        reason = " ".join(str(error).split())[:300]
        blameless = (
            bool(getattr(error, "preempted", False))
            or NODE_DIED in str(error)  # known also of one that had not said yet where it is
            or not is_head_there()  # nobody can be asked
            or (bool(node) and not is_node_alive(node))
        )
        return Lost(worker, reason, blameless=blameless)
