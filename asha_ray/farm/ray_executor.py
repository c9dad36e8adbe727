"""A render's work on Ray: tasks for analysis and assembly, warm actors for chunks.

No actor restarts by itself, and a chunk goes only to an actor that has said it is ready: what an
actor was doing when it died is simply given to another.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayTaskError

from asha_ray.audio.parallel import Spread
from asha_ray.errors import AshaError, EncodeError, FarmError, SpecError
from asha_ray.farm.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.assemble import AssemblyJob, assemble
from asha_ray.farm.numerics import refusal
from asha_ray.farm.plan import cpu_threads
from asha_ray.farm.ray_map import map_on_ray
from asha_ray.farm.ray_runtime import (
    is_one_machine,
    num_devices,
    own_error,
    ray_cluster,
    require_cpu,
    result_of,
)
from asha_ray.farm.survey import Survey, survey
from asha_ray.farm.worker import MAX_ATTEMPTS, ChunkRenderer, ChunkTask, WorkerJob
from asha_ray.progress import Progress
from asha_ray.vae.generator import pick_device
from asha_ray.values import Segment
from asha_ray.video.probe import VideoReport

POLL_S = 0.5
MAX_LOSSES_PER_CHUNK = 5
"""Workers that may die under one chunk before it is blamed."""
MAX_FAILED_STARTS = 3
FEW_BLOCKS = 10
"""Blocks of a minute that are measured in this process: a task would take longer to begin."""
MAX_BLOCKS, MAX_PARTS = 64, 16
"""At once, on any cluster: 8 MB each and 60 MB each lie in the object store meanwhile."""
MAX_WORKERS_PER_GPU = 4
CORES_PER_ENCODER = 8
STOP_S = 5.0
"""What a worker may take to put away a chunk that is not wanted any more."""


class _RenderActor:
    """A chunk renderer in a process of its own, which tells how far it is while it works."""

    def __init__(self, job: WorkerJob) -> None:
        self._refusal = refusal(job.numerics, allow_mixed=job.allow_mixed)
        if not self._refusal:
            self._renderer = ChunkRenderer(job)
        self._lock = threading.Lock()
        self._unreported = 0
        self._stopped = threading.Event()
        self._resting = threading.Event()
        self._resting.set()

    def ready(self) -> str:
        """Empty once the model is loaded; else why this worker must not render."""
        return self._refusal

    def render(self, task: ChunkTask) -> Segment:
        """Render one chunk."""
        self._resting.clear()
        try:
            return self._renderer.render(task, self._count)
        finally:
            self._resting.set()

    def stop(self) -> None:
        """Give up the chunk in hand, and return when its temporary files are gone."""
        self._stopped.set()
        self._resting.wait(STOP_S)

    def take_frames(self) -> int:
        """Frames made since the last call."""
        with self._lock:
            count, self._unreported = self._unreported, 0
        return count

    def _count(self, num_frames: int) -> None:
        if self._stopped.is_set() and num_frames > 0:
            raise FarmError("rendering: it was stopped")
        with self._lock:
            self._unreported += num_frames


class RayExecutor:
    """Does a render's work on a Ray cluster, or on a local Ray of its own.

    Args:
        workers: how many actors decode; as many as the cluster holds where None.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._stack = ExitStack()
        self._pool: _Pool | None = None

    def __enter__(self) -> Self:
        """Join or start Ray."""
        self._stack.enter_context(ray_cluster())
        require_cpu()
        return self

    def __exit__(self, *exc: object) -> None:
        """End the actors, leave Ray."""
        if self._pool:
            self._pool.close()
        self._stack.close()

    def survey(self, codec: str) -> Survey:
        """This machine where it is all there is, else a machine that would render."""
        device = self._device()
        if is_one_machine():
            return survey(device, codec)
        looker = ray.remote(num_cpus=0, num_gpus=0.01 if device == "cuda" else 0)(survey)
        found: Survey = result_of(looker.remote(device, codec))
        return found

    def cores(self) -> int:
        """As many as this machine has, within reason and within a node's."""
        return max(1, min(cpu_threads(), int(num_devices("CPU"))))

    def _device(self) -> str:
        """A GPU where the cluster has one, else as this machine."""
        local = pick_device()
        if num_devices("GPU") >= 1 and (local == "cuda" or not is_one_machine()):
            return "cuda"
        return "cpu" if local == "cuda" else local

    def warm_up(self, job: WorkerJob) -> None:
        """Ask for the actors; they load the model meanwhile."""
        self._pool = _Pool(job, self._num_workers(job), _actor_resources(job))

    def analyze(
        self, job: AnalysisJob, work: str | None, progress: Progress | None = None
    ) -> Analysis:
        """Features of a track: it is decoded here, and measured and separated in tasks.

        Raises:
            SpecError: if stems have no place to go that every machine sees.
        """
        if job.separator is not None and work is None and not is_one_machine():
            raise SpecError(
                "listening to stems on several machines: they need a place that all of them see; "
                "give --work or --out on s3:// or on a shared disk"
            )
        return analyze_uri(job, work, self.spread(), progress)

    def spread(self, device: str = "cpu") -> Spread:
        """In tasks on the whole cluster, as many at once as it has CPUs, or GPUs for parts."""
        num_cpus, num_gpus = (max(1, int(num_devices(kind))) for kind in ("CPU", "GPU"))
        parts = map_on_ray(min(MAX_PARTS, num_cpus))
        if device == "cuda":
            parts = map_on_ray(num_gpus, num_gpus=1)
        return Spread(map_on_ray(min(MAX_BLOCKS, num_cpus), few=FEW_BLOCKS), parts)

    def render(
        self, job: WorkerJob, tasks: Iterable[ChunkTask], on_frames: Callable[[int], None]
    ) -> Iterator[Segment]:
        """Render chunks on whichever actors are free."""
        if self._pool is None:
            self.warm_up(job)
        assert self._pool is not None  # noqa: S101 (warm_up makes it)
        yield from self._pool.run(tasks, on_frames)

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered: here, or in a task where there are more machines than this."""
        if self._pool:
            self._pool.close()
            self._pool = None
        if is_one_machine():  # another process would take seconds to begin
            return assemble(job)
        report: VideoReport = result_of(_remote(assemble).remote(job))
        return report

    def _num_workers(self, job: WorkerJob) -> int:
        if self._workers:
            return self._workers
        if job.numerics.device == "cuda":
            return max(1, int(num_devices("GPU"))) * _workers_per_gpu()
        return max(1, int(num_devices("CPU")) // job.cores)


def _remote(function: Callable[..., Any], num_cpus: int = 1) -> Any:
    return ray.remote(num_cpus=num_cpus, max_retries=2)(function)


def _actor_resources(job: WorkerJob) -> dict[str, float]:
    resources = {"num_cpus": max(1.0, job.cores - 1.0)}
    if job.numerics.device == "cuda":
        resources["num_gpus"] = 1.0 / _workers_per_gpu()
    return resources


def _workers_per_gpu() -> int:
    """Workers that share a GPU: one encoder on CPUs cannot keep up with its decoder, so several
    encode consecutive chunks, as many as there are cores for.
    """
    cores_per_gpu = num_devices("CPU") / max(1.0, num_devices("GPU"))
    return int(min(MAX_WORKERS_PER_GPU, max(1, cores_per_gpu // CORES_PER_ENCODER)))


@dataclass
class _Pool:
    """The actors, and what each is doing. A call of `run` is the whole scheduler."""

    job: WorkerJob
    num_workers: int
    resources: dict[str, float]
    _starting: dict[Any, Any] = field(default_factory=dict)
    _busy: dict[Any, tuple[Any, ChunkTask]] = field(default_factory=dict)
    _idle: list[Any] = field(default_factory=list)
    _losses: dict[int, int] = field(default_factory=dict)
    _attempts: dict[int, int] = field(default_factory=dict)
    _failed_starts: int = 0

    def __post_init__(self) -> None:
        for _ in range(self.num_workers):
            self._start_actor()

    def run(
        self, tasks: Iterable[ChunkTask], on_frames: Callable[[int], None]
    ) -> Iterator[Segment]:
        """Work through tasks; a lost actor's chunk goes to another."""
        waiting = iter(tasks)
        first = next(waiting, None)
        if first is None:
            return  # all is there already: no worker need be waited for
        lost: deque[ChunkTask] = deque([first])
        while True:
            while self._idle and (task := lost.popleft() if lost else next(waiting, None)):
                actor = self._idle.pop()
                self._busy[actor.render.remote(task)] = (actor, task)
            if not self._busy and not lost and self._idle:
                return
            references = [*self._busy, *self._starting]
            finished, _ = ray.wait(references, num_returns=1, timeout=POLL_S)
            for reference in finished:
                if reference in self._starting:
                    self._take_started(reference)
                elif (segment := self._take_rendered(reference, lost)) is not None:
                    yield segment
            self._report(on_frames)

    def close(self) -> None:
        """End all actors; those at work first put away what they have begun."""
        stops = [actor.stop.remote() for actor in self._busy_actors()]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_S)
        for actor in [*self._idle, *self._starting.values(), *(a for a, _ in self._busy.values())]:
            ray.kill(actor)
        self._idle, self._starting, self._busy = [], {}, {}

    def _start_actor(self) -> None:
        options = {"max_restarts": 0, "max_concurrency": 2, **self.resources}
        actor = ray.remote(**options)(_RenderActor).remote(self.job)
        self._starting[actor.ready.remote()] = actor

    def _take_started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            refused: str = ray.get(reference)
        except RayTaskError as error:
            raise own_error(error) from error
        except RayActorError as error:
            self._failed_starts += 1
            cause = getattr(error, "cause", None)
            if isinstance(cause, RayTaskError):
                raise own_error(cause) from error
            if self._failed_starts > MAX_FAILED_STARTS:
                raise FarmError(
                    f"starting a render worker: it died {self._failed_starts} times ({error}); "
                    "look for what ended it, often too little memory"
                ) from error
            self._start_actor()
            return
        if not refused:
            self._idle.append(actor)
            return
        ray.kill(actor)
        if not (self._idle or self._busy or self._starting):
            raise FarmError(f"rendering: {refused}")

    def _take_rendered(self, reference: Any, lost: deque[ChunkTask]) -> Segment | None:
        actor, task = self._busy.pop(reference)
        try:
            segment: Segment = ray.get(reference)
        except RayTaskError as error:
            self._try_again(actor, task, own_error(error), lost)
            return None
        except RayActorError as error:
            chunk = task.chunk
            self._losses[chunk.index] = self._losses.get(chunk.index, 0) + 1
            if self._losses[chunk.index] >= MAX_LOSSES_PER_CHUNK:
                raise FarmError(
                    f"rendering frames {chunk.start} to {chunk.stop}: {MAX_LOSSES_PER_CHUNK} "
                    f"workers died over it ({error}); what is finished is kept"
                ) from error
            lost.append(task)
            self._start_actor()
            return None
        self._idle.append(actor)
        return segment

    def _try_again(
        self, actor: Any, task: ChunkTask, error: AshaError, lost: deque[ChunkTask]
    ) -> None:
        """Give a chunk whose encoder failed to the next free actor, a few times."""
        attempts = self._attempts[task.chunk.index] = self._attempts.get(task.chunk.index, 0) + 1
        if not isinstance(error, EncodeError) or attempts >= MAX_ATTEMPTS:
            raise error
        lost.append(task)
        self._idle.append(actor)

    def _report(self, on_frames: Callable[[int], None]) -> None:
        counts = [actor.take_frames.remote() for actor in [*self._idle, *self._busy_actors()]]
        done, _ = ray.wait(counts, num_returns=len(counts), timeout=POLL_S) if counts else ([], [])
        for count in done:
            try:
                on_frames(ray.get(count))
            except RayActorError:
                continue  # its loss is noticed where its chunk is awaited

    def _busy_actors(self) -> list[Any]:
        return [actor for actor, _ in self._busy.values()]
