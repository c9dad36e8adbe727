"""A render's work on Ray: tasks for analysis and assembly, warm actors for chunks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asha_ray.audio.parallel import Item, Result, Spread
from asha_ray.errors import SpecError
from asha_ray.farm.cores import MAX_THREADS, cpu_threads
from asha_ray.farm.listening.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.on_ray.capacity import Capacity, Growth, Resources
from asha_ray.farm.on_ray.cluster import (
    ON_CPU,
    ON_GPU,
    await_first_node,
    await_node,
    holding_node,
    read_capacity,
    read_growth,
    require_cpu,
)
from asha_ray.farm.on_ray.crew import OPTIONS, RayCrew
from asha_ray.farm.on_ray.helpers import Helpers
from asha_ray.farm.on_ray.metrics import Metrics
from asha_ray.farm.on_ray.ray_map import MAX_RETRIES, map_on_ray
from asha_ray.farm.on_ray.runtime import (
    is_one_machine,
    is_own_ray,
    num_devices,
    ray_cluster,
    result_of,
)
from asha_ray.farm.on_ray.share import Share, repeating
from asha_ray.farm.on_ray.workers import Asked, ask, num_workers
from asha_ray.farm.rendering.assemble import AssemblyJob, assemble
from asha_ray.farm.rendering.scheduler import Scheduler, Watch
from asha_ray.farm.rendering.survey import Survey, survey
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob
from asha_ray.progress import NullProgress, Progress, Stop
from asha_ray.scratch import sweep, system_folder
from asha_ray.spec import RunSettings
from asha_ray.values import Segment
from asha_ray.video.probe import VideoReport

FEW_BLOCKS = 10
"""Blocks of a minute that are measured in this process: a task would take longer to begin."""
MAX_BLOCKS, MAX_PARTS = 64, 16
"""At once, on any cluster: 8 MB each and 60 MB each lie in the object store meanwhile."""


class RayExecutor:
    """Does a render's work on a Ray cluster, or on a local Ray of its own.

    Args:
        run: what a person wants of the cluster.
    """

    def __init__(self, run: RunSettings | None = None) -> None:
        self._run = run or RunSettings()
        self._stack = ExitStack()
        self._warming = ExitStack()
        self._growth = Growth()
        self._share: Share | None = None
        self._crew: RayCrew | None = None
        self._scheduler: Scheduler | None = None
        self._metrics: Metrics | None = None
        self._helpers = Helpers()

    def __enter__(self) -> Self:
        """Join or start Ray.

        Raises:
            ResourceError: if the cluster has no CPU, and will have none.
        """
        with ExitStack() as stack:
            stack.enter_context(ray_cluster())
            self._growth = read_growth()
            require_cpu(self._capacity())
            if not is_own_ray():
                self._share = Share(self._run.priority)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """End the actors, leave Ray."""
        try:
            self._dismiss()
            self._helpers.close()
        finally:
            self._stack.close()

    def _dismiss(self) -> None:
        self._warming.close()
        if self._crew:
            self._crew.close()
        if self._share:
            self._share.leave()
        if self._metrics:
            self._metrics.rest()
        self._crew = self._scheduler = None

    def _capacity(self) -> Capacity:
        return read_capacity(self._growth)

    def _is_alone(self) -> bool:
        """Whether this machine is all there is, and will be."""
        return is_one_machine() and not self._growth

    def survey(self, codec: str, progress: Progress | None = None) -> Survey:
        """This machine where it is all there is, else a machine that would render.

        Raises:
            ResourceError: if the cluster has no node that could hold a worker, and will not.
        """
        self._await_first_node((progress or NullProgress()).note)
        capacity, device = self._capacity(), self._device()
        asked = self._ask(capacity, device).require(capacity)
        if self._is_alone():
            return survey(device, codec)
        if self._share:  # from here on, until the workers themselves ask: others make room
            self._warming.enter_context(repeating(partial(self._want, 1, asked)))
        looker = ray.remote(max_retries=MAX_RETRIES, **_looking(capacity, asked, device))(survey)
        reference = looker.remote(device, codec)
        if not capacity.now(asked):
            await_node(reference, asked, self._growth, (progress or NullProgress()).note)
        found: Survey = result_of(reference)
        return found

    def _await_first_node(self, note: Callable[[str], None]) -> None:
        """Where nobody can say what nodes there will be, one is there before a device is chosen."""
        wishes = {"auto": [ON_GPU, ON_CPU], "cuda": [ON_GPU]}.get(self._run.device, [ON_CPU])
        capacity = self._capacity()
        if not capacity.is_known(wishes[-1]):
            with self._asking(wishes[-1]):
                await_first_node(capacity, wishes, note)

    def cores(self) -> int:
        """As many as this machine has, within reason and within a node's."""
        return self._ask(self._capacity(), self._device()).cores

    def _device(self) -> str:
        """As a person said; else a GPU where the cluster has one, else as this machine."""
        if self._run.device != "auto":
            return self._run.device
        from asha_ray.vae.generator import pick_device

        local = pick_device()
        if self._capacity().largest("GPU") >= 1 and (local == "cuda" or not self._is_alone()):
            return "cuda"
        return "cpu" if local == "cuda" else local

    def _ask(self, capacity: Capacity, device: str) -> Asked:
        return ask(
            capacity,
            on_gpu=device == "cuda",
            gpus_per_worker=self._run.gpus_per_worker,
            most_cores=cpu_threads() if self._is_alone() else MAX_THREADS,
        )

    def warm_up(self, job: WorkerJob) -> Mapping[str, float]:
        """Ask for the actors; they load the model meanwhile.

        Raises:
            ResourceError: if the cluster has no node that could hold one, and will not.
        """
        capacity = self._capacity()
        asking = self._ask(capacity, job.numerics.device)
        asked = asking.require(capacity, job.memory_bytes)
        room = partial(self._room, asked, asking.counted(asked))
        self._crew = RayCrew(job, room, asked, places=lambda: self._capacity().now(asked))
        self._scheduler = Scheduler(self._crew)
        self._warming.close()
        self._scheduler.warm_up()
        if self._share:  # others may want what is held while nothing is rendered yet
            self._warming.enter_context(repeating(self._scheduler.warm_up))
        return asking.resources

    def _room(self, asked: Resources, counted: Resources, most: int | None) -> int:
        """How many workers there should be, as the cluster and those who share it are now."""
        capacity = self._capacity()
        wanted = num_workers(capacity, counted, wanted=self._run.workers, most=most)
        share = self._want(wanted, asked, capacity)
        return wanted if share is None else min(wanted, share)

    def _want(self, workers: int, asked: Resources, capacity: Capacity | None = None) -> int | None:
        """Tell whoever shares the cluster what is wanted, and hear what may be had."""
        if self._share is None:
            return None
        capacity = capacity or self._capacity()
        has = self._crew.num_ready if self._crew else 0
        nodes, living = capacity.kinds_of_nodes(), capacity.living_nodes()
        return self._share.ask(workers, asked, nodes, living, has)

    @contextmanager
    def _asking(self, asked: Resources) -> Iterator[None]:
        """Want so much of the cluster while something is done that is no chunk."""
        if self._share is None:
            yield
            return
        with repeating(partial(self._want, 1, asked)):
            yield
        self._share.leave()

    def analyze(
        self, job: AnalysisJob, work: str | None, progress: Progress | None = None
    ) -> Analysis:
        """Features of a track: it is decoded here, and measured and separated in tasks.

        Raises:
            SpecError: if stems have no place to go that every machine sees.
        """
        if job.separator is not None and work is None and not self._is_alone():
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
        self, job: WorkerJob, tasks: Iterable[ChunkTask | None], watch: Watch
    ) -> Iterator[Segment]:
        """Render chunks on whichever actors are free."""
        if self._scheduler is None:
            self.warm_up(job)
        assert self._scheduler is not None  # noqa: S101 (warm_up makes it)
        self._warming.close()
        self._metrics = self._metrics or Metrics()
        yield from self._scheduler.run(tasks, self._metrics.watching(watch))

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered: here, or in a task where there are more machines than this."""
        self._dismiss()
        if self._is_alone():  # another process would take seconds to begin
            return assemble(job)
        with self._asking({"CPU": 1.0}):  # so that other jobs make room for it
            report: VideoReport = result_of(_remote(_assemble_anywhere).remote(job))
        return report

    def num_calls(self) -> int:
        """As many as the cluster has CPUs."""
        return cpu_threads() if self._is_alone() else max(1, int(num_devices("CPU")))

    def call(self, function: Callable[[Item, Progress], Result], item: Item, stop: Stop) -> Result:
        """Here where this is the only machine, else by a warm process on any."""
        if self._is_alone():
            return function(item, stop)
        return self._helpers.call(function, item, stop, self.num_calls())


def _looking(capacity: Capacity, asked: Resources, device: str) -> dict[str, Any]:
    """Ray's options for a look at a node that holds a worker: at one that is there, or to come.

    Where one is there already it reserves as good as nothing, so that nobody need make room.
    """
    if not capacity.now(asked):
        return {OPTIONS[kind]: amount for kind, amount in asked.items()}
    if device == "cuda":
        return {"num_cpus": 0, "num_gpus": 0.01}
    node = holding_node(asked)
    where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
    return {"num_cpus": 0, **where}


def _assemble_anywhere(job: AssemblyJob) -> VideoReport:
    """Join a render in a task; a worker that was killed at that has left a whole video behind."""
    sweep(system_folder())
    return assemble(job)


def _remote(function: Callable[..., Any], num_cpus: int = 1) -> Any:
    return ray.remote(num_cpus=num_cpus, max_retries=MAX_RETRIES)(function)
