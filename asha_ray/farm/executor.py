"""Where a render's work is done: the protocol, and its serial twin that needs no Ray."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, Self

from asha_ray.audio.parallel import Spread, map_in_threads
from asha_ray.errors import EncodeError
from asha_ray.farm.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.assemble import AssemblyJob, assemble
from asha_ray.farm.plan import cpu_threads
from asha_ray.farm.survey import Survey, survey
from asha_ray.farm.worker import MAX_ATTEMPTS, ChunkRenderer, ChunkTask, WorkerJob
from asha_ray.progress import Progress
from asha_ray.values import Segment
from asha_ray.video.convert import prepare
from asha_ray.video.probe import VideoReport


class Executor(Protocol):
    """Does a render's work somewhere. Used as a context; leaving it frees what it took."""

    def survey(self, codec: str) -> Survey:
        """What the machines are that render; `codec` is what was asked for."""

    def cores(self) -> int:
        """CPU cores for each worker: for its decoders and its encoder."""

    def warm_up(self, job: WorkerJob) -> None:
        """Begin to load the model where it will be needed; returns at once."""

    def analyze(
        self, job: AnalysisJob, work: str | None, progress: Progress | None = None
    ) -> Analysis:
        """Features of a track."""

    def spread(self, device: str = "cpu") -> Spread:
        """Where sound is measured, and where it is separated on a kind of device."""

    def render(
        self, job: WorkerJob, tasks: Iterable[ChunkTask], on_frames: Callable[[int], None]
    ) -> Iterator[Segment]:
        """Render chunks; their segments come in any order. `on_frames` hears of progress."""

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *exc: object) -> None:
        """Free everything."""


class SerialExecutor:
    """Does everything in this process, one thing after the other."""

    def __init__(self) -> None:
        self._loader = ThreadPoolExecutor(1, "loader")
        self._renderer: Future[ChunkRenderer] | None = None
        # The compiled conversion is loaded while the model is read and the render planned.
        threading.Thread(target=prepare, name="prepare", daemon=True).start()

    def survey(self, codec: str) -> Survey:
        """This machine."""
        return survey(codec=codec)

    def cores(self) -> int:
        """As many as this machine has, within reason."""
        return cpu_threads()

    def warm_up(self, job: WorkerJob) -> None:
        """Load the model while the sound is analysed."""
        self._renderer = self._loader.submit(ChunkRenderer, job)

    def analyze(
        self, job: AnalysisJob, work: str | None, progress: Progress | None = None
    ) -> Analysis:
        """Features of a track."""
        return analyze_uri(job, work, self.spread(), progress)

    def spread(self, device: str = "cpu") -> Spread:
        """In as many threads as this machine has cores; on a device one after the other."""
        threads = map_in_threads(cpu_threads())
        return Spread(threads, threads if device == "cpu" else map)

    def render(
        self, job: WorkerJob, tasks: Iterable[ChunkTask], on_frames: Callable[[int], None]
    ) -> Iterator[Segment]:
        """Render chunks in order; one whose encoder fails is tried again."""
        for task in tasks:
            if self._renderer is None:
                self.warm_up(job)
            assert self._renderer is not None  # noqa: S101 (warm_up makes it)
            yield _render_patiently(self._renderer.result(), task, on_frames)

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered."""
        return assemble(job)

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End its threads."""
        self._loader.shutdown()
        if self._renderer is not None and self._renderer.exception() is None:
            self._renderer.result().close()


def executor_for(name: str, workers: int | None = None) -> Executor:
    """The executor of that name, `serial` or `ray`; with Ray, with so many decoders."""
    if name == "serial":
        return SerialExecutor()
    from asha_ray.farm.ray_executor import RayExecutor

    return RayExecutor(workers)


def _render_patiently(
    renderer: ChunkRenderer, task: ChunkTask, on_frames: Callable[[int], None]
) -> Segment:
    for _ in range(MAX_ATTEMPTS - 1):
        with suppress(EncodeError):
            return renderer.render(task, on_frames)
    return renderer.render(task, on_frames)
