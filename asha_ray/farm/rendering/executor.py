"""Where a render's work is done: the protocol, and its serial twin that needs no Ray."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, Self

from asha_ray.audio.parallel import Item, Result, Spread, map_in_threads
from asha_ray.errors import AshaError, FarmError
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.listening.analysis import Analysis, AnalysisJob, analyze_uri
from asha_ray.farm.rendering.assemble import AssemblyJob, assemble
from asha_ray.farm.rendering.crew import Done, Event, Failed, Made, Ready, Worker
from asha_ray.farm.rendering.scheduler import Scheduler, Watch
from asha_ray.farm.rendering.survey import Survey, survey
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob, worker_name
from asha_ray.progress import Progress, Stop
from asha_ray.spec import RunSettings
from asha_ray.values import Segment
from asha_ray.video.probe import VideoReport

if TYPE_CHECKING:
    from asha_ray.farm.rendering.worker import ChunkRenderer


class Executor(Protocol):
    """Does a render's work somewhere. Used as a context; leaving it frees what it took."""

    def survey(self, codec: str, progress: Progress | None = None) -> Survey:
        """What the machines are that render; `codec` is what was asked for."""

    def cores(self) -> int:
        """CPU cores for each worker: for its decoders and its encoder."""

    def warm_up(self, job: WorkerJob) -> Mapping[str, float]:
        """Begin to load the model where it will be needed.

        Returns:
            At once, what each worker takes: `CPU`, and `GPU` where it has one.
        """

    def analyze(
        self, job: AnalysisJob, work: str | None, progress: Progress | None = None
    ) -> Analysis:
        """Features of a track."""

    def spread(self, device: str = "cpu") -> Spread:
        """Where sound is measured, and where it is separated on a kind of device."""

    def render(
        self, job: WorkerJob, tasks: Iterable[ChunkTask | None], watch: Watch
    ) -> Iterator[Segment]:
        """Render chunks; their segments come in any order."""

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered."""

    def num_calls(self) -> int:
        """How many calls at once are of use."""

    def call(self, function: Callable[[Item, Progress], Result], item: Item, stop: Stop) -> Result:
        """Do something beside the rendering, from any thread, wherever there is a machine for it.

        Raises:
            FarmError: if it is stopped meanwhile.
        """

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *exc: object) -> None:
        """Free everything."""


class SerialCrew:
    """One worker: a thread of this process, which loads the model first."""

    def __init__(self, job: WorkerJob) -> None:
        self._thread = ThreadPoolExecutor(1, "renderer")
        self._renderer = self._thread.submit(_renderer, job)
        self._events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._index = -1

    def room(self, most: int | None) -> int:  # noqa: ARG002
        """This process."""
        return 1

    def num_places(self) -> int:
        """This process."""
        return 1

    def start(self) -> Worker:
        """It is ready when the model is loaded."""
        self._renderer.add_done_callback(
            lambda loaded: self._events.put(loaded.exception() or Ready(0, worker_name()))
        )
        return 0

    def give(self, worker: Worker, task: ChunkTask) -> None:  # noqa: ARG002
        """Render a chunk in the thread."""
        self._index = task.chunk.index
        self._thread.submit(self._render, task)

    def take_back(self, worker: Worker) -> None:  # noqa: ARG002
        """Give up the chunk in hand."""
        self._renderer.result().give_up(self._index)

    def end(self, worker: Worker) -> None:
        """It ends with the crew."""

    def leaving(self) -> Mapping[Worker, float]:
        """It stays."""
        return {}

    def wait(self, timeout_s: float) -> list[Event]:
        """What the thread said."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return []
        if isinstance(event, BaseException):
            raise event
        return [event]

    def close(self) -> None:
        """Give up what is in hand, and end the thread."""
        if self._renderer.done() and self._renderer.exception() is None:
            self._renderer.result().give_up()
        self._thread.shutdown(cancel_futures=True)
        if not self._renderer.cancelled() and self._renderer.exception() is None:
            self._renderer.result().close()

    def _render(self, task: ChunkTask) -> None:
        try:
            segment = self._renderer.result().render(
                task, lambda num_frames: self._events.put(Made(0, num_frames))
            )
            self._events.put(Done(0, segment))
        except AshaError as error:
            self._events.put(Failed(0, error))
        except (OSError, RuntimeError) as error:  # such as a full disk for temporary files
            self._events.put(Failed(0, FarmError(f"rendering a chunk: {error!r}")))
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            self._events.put(error)


def _renderer(job: WorkerJob) -> "ChunkRenderer":
    from asha_ray.farm.rendering.worker import ChunkRenderer

    return ChunkRenderer(job)


def _prepare() -> None:
    from asha_ray.video.convert import prepare

    prepare()


class SerialExecutor:
    """Does everything in this process, one thing after the other.

    Args:
        device: that decodes, see `survey`.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._crew: SerialCrew | None = None

    def survey(self, codec: str, progress: Progress | None = None) -> Survey:  # noqa: ARG002
        """This machine."""
        # The compiled conversion is loaded while the model is read and the render planned.
        threading.Thread(target=_prepare, name="prepare", daemon=True).start()
        return survey(self._device, codec)

    def cores(self) -> int:
        """As many as this machine has, within reason."""
        return cpu_threads()

    def warm_up(self, job: WorkerJob) -> Mapping[str, float]:
        """Load the model while the sound is analysed."""
        self._crew = SerialCrew(job)
        return {"CPU": float(job.cores)}

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
        self, job: WorkerJob, tasks: Iterable[ChunkTask | None], watch: Watch
    ) -> Iterator[Segment]:
        """Render chunks in order."""
        if self._crew is None:
            self.warm_up(job)
        assert self._crew is not None  # noqa: S101 (warm_up makes it)
        yield from Scheduler(self._crew).run(tasks, watch)

    def assemble(self, job: AssemblyJob) -> VideoReport:
        """Join what was rendered."""
        return assemble(job)

    def num_calls(self) -> int:
        """As many as this machine has cores."""
        return cpu_threads()

    def call(self, function: Callable[[Item, Progress], Result], item: Item, stop: Stop) -> Result:
        """Do it in the thread that asks."""
        return function(item, stop)

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End its threads."""
        if self._crew is not None:
            self._crew.close()


def executor_for(name: str, run: RunSettings | None = None) -> Executor:
    """The executor of that name, `serial` or `ray`, with a render's settings for it."""
    run = run or RunSettings()
    if name == "serial":
        return SerialExecutor(run.device)
    from asha_ray.farm.on_ray.executor import RayExecutor

    return RayExecutor(run)
