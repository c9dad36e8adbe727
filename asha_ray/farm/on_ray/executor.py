"""A render's work on Ray: tasks for analysis and assembly, warm actors for chunks."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import ray

from asha_ray.audio.parallel import Spread
from asha_ray.errors import SpecError
from asha_ray.farm.listening.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.on_ray.crew import RayCrew
from asha_ray.farm.on_ray.ray_map import MAX_RETRIES, map_on_ray
from asha_ray.farm.on_ray.runtime import (
    is_one_machine,
    largest_node_cpus,
    num_devices,
    ray_cluster,
    require_cpu,
    result_of,
)
from asha_ray.farm.rendering.assemble import AssemblyJob, assemble
from asha_ray.farm.rendering.plan import cpu_threads
from asha_ray.farm.rendering.scheduler import Scheduler, Watch
from asha_ray.farm.rendering.survey import Survey, survey
from asha_ray.farm.rendering.worker import ChunkTask, WorkerJob
from asha_ray.progress import Progress
from asha_ray.scratch import sweep, system_folder
from asha_ray.vae.generator import pick_device
from asha_ray.values import Segment
from asha_ray.video.probe import VideoReport

FEW_BLOCKS = 10
"""Blocks of a minute that are measured in this process: a task would take longer to begin."""
MAX_BLOCKS, MAX_PARTS = 64, 16
"""At once, on any cluster: 8 MB each and 60 MB each lie in the object store meanwhile."""
MAX_WORKERS_PER_GPU = 4
CORES_PER_ENCODER = 8


class RayExecutor:
    """Does a render's work on a Ray cluster, or on a local Ray of its own.

    Args:
        workers: how many actors decode; as many as the cluster holds where None.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._stack = ExitStack()
        self._crew: RayCrew | None = None
        self._scheduler: Scheduler | None = None

    def __enter__(self) -> Self:
        """Join or start Ray."""
        self._stack.enter_context(ray_cluster())
        require_cpu()
        return self

    def __exit__(self, *exc: object) -> None:
        """End the actors, leave Ray."""
        try:
            self._dismiss()
        finally:
            self._stack.close()

    def _dismiss(self) -> None:
        if self._crew:
            self._crew.close()
        self._crew = self._scheduler = None

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
        return max(1, min(cpu_threads(), largest_node_cpus()))

    def _device(self) -> str:
        """A GPU where the cluster has one, else as this machine."""
        local = pick_device()
        if num_devices("GPU") >= 1 and (local == "cuda" or not is_one_machine()):
            return "cuda"
        return "cpu" if local == "cuda" else local

    def warm_up(self, job: WorkerJob) -> None:
        """Ask for the actors; they load the model meanwhile."""
        self._crew = RayCrew(job, partial(self._num_workers, job), _actor_resources(job))
        self._scheduler = Scheduler(self._crew)
        self._scheduler.warm_up()

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

    def render(self, job: WorkerJob, tasks: Iterable[ChunkTask], watch: Watch) -> Iterator[Segment]:
        """Render chunks on whichever actors are free."""
        if self._scheduler is None:
            self.warm_up(job)
        assert self._scheduler is not None  # noqa: S101 (warm_up makes it)
        yield from self._scheduler.run(tasks, watch)

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered: here, or in a task where there are more machines than this."""
        self._dismiss()
        if is_one_machine():  # another process would take seconds to begin
            return assemble(job)
        report: VideoReport = result_of(_remote(_assemble_anywhere).remote(job))
        return report

    def _num_workers(self, job: WorkerJob) -> int:
        if self._workers:
            return self._workers
        if job.numerics.device == "cuda":
            return max(1, int(num_devices("GPU"))) * _workers_per_gpu()
        return max(1, int(num_devices("CPU")) // job.cores)


def _assemble_anywhere(job: AssemblyJob) -> VideoReport:
    """Join a render in a task; a worker that was killed at that has left a whole video behind."""
    sweep(system_folder())
    return assemble(job)


def _remote(function: Callable[..., Any], num_cpus: int = 1) -> Any:
    return ray.remote(num_cpus=num_cpus, max_retries=MAX_RETRIES)(function)


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
