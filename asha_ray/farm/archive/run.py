"""An archive's run: many shows at once, on the same workers, until each has ended in some way.

Threads hear and finish shows, the scheduler renders their chunks from one queue. Shows are begun as
the queue runs low, so what is held depends on the workers that there are, and not on the archive.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from asha_ray.errors import (
    AshaError,
    FarmError,
    ManifestError,
    NotFoundError,
    SegmentError,
)
from asha_ray.farm.archive import outcome
from asha_ray.farm.archive.beats import Beats
from asha_ray.farm.archive.failures import Failures, Fate
from asha_ray.farm.archive.finish import FinishJob, finish_show
from asha_ray.farm.archive.hands import Hands
from asha_ray.farm.archive.others import Others
from asha_ray.farm.archive.outputs import remove_files
from asha_ray.farm.archive.planner import Planner
from asha_ray.farm.archive.shows import Show, Shows
from asha_ray.farm.archive.telling import tell
from asha_ray.farm.archive.todo import Todo
from asha_ray.farm.jobs.meter import Meter
from asha_ray.farm.rendering.assemble import AssemblyJob
from asha_ray.farm.rendering.executor import Executor
from asha_ray.farm.rendering.scheduler import Watch
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob
from asha_ray.faults import reach
from asha_ray.progress import Progress, Stop
from asha_ray.spec import ArchiveSpec
from asha_ray.storage import join, storage_of
from asha_ray.storage.journal import Journal
from asha_ray.storage.ledger import Ledger, Records, ShowRecord, ShowState

MAX_OPEN = 64
"""Shows that are begun and not ended, beside two for each worker."""
MAX_OPEN_FRAMES = 4_000_000
"""Of all their videos: 18 hours at 60 fps. One show is begun however long it is."""
USUAL_BYTES_PER_S = 16_000
"""Of sound: so the length of a show is guessed that is not heard yet."""
MAX_CALLS = 128
"""Shows that are heard at once, and likewise finished, on any cluster."""
MIN_BACKLOG = 4
MAX_ROUNDS = 3
"""How often a show's segments may prove damaged."""
PAUSE_S = 5.0
"""Before a show that failed is tried again, and twice as long before the next time."""
ELSEWHERE_S = 10.0
"""Before one looks again for a show that another run has in hand."""
HEARING_S, PUBLISHING_S = 1.0, 3.0
"""What is waited for threads when a run is stopped: the second for a video on its way to its place;
either loses nothing that is finished."""
LOOK_EVERY_S = 10.0
"""How often the executor is asked how much it can do at once: a cluster may have grown."""
TELL_EVERY_S, TELL_PAUSE = 300.0, 20.0
"""How often catalogue and page are written; where that takes long, so many times that later."""


@dataclass
class Tally:
    """What has become of the shows of a run.

    Attributes:
        shows: that it set out to do.
        done: that are in their place, `elsewhere` by another run.
        elsewhere: likewise.
        failed: attempts that failed and were to be repeated.
        parked: that a person must look at.
        skipped: that a rule leaves out, or that somebody has taken down meanwhile.
        sound_s: seconds of sound of those that this run has done.
        chunks: of those.
        reused_chunks: of these, those that were there already.
        bytes_left: of the sound files that are still to do.
    """

    shows: int
    done: int = 0
    elsewhere: int = 0
    failed: int = 0
    parked: int = 0
    skipped: int = 0
    sound_s: float = 0.0
    chunks: int = 0
    reused_chunks: int = 0
    bytes_left: int = 0


class Run(Iterator[ChunkTask | None]):
    """One run through what is to do of an archive; as an iterator, the chunks it has to render.

    Args:
        spec: the archive.
        ledger: where it is told what has become of shows.
        todo: the shows.
        executor: where work is done.
        planner: plans shows.
        stop: ends what threads have begun.
        journal: hears of everything.
        progress: hears of shows.
        meter: counts what workers take.
    """

    def __init__(
        self,
        spec: ArchiveSpec,
        ledger: Ledger,
        todo: list[Todo],
        executor: Executor,
        planner: Planner,
        stop: Stop,
        journal: Journal,
        progress: Progress,
        meter: Meter,
    ) -> None:
        self._spec, self._ledger, self._executor = spec, ledger, executor
        self._planner, self._stop, self._meter = planner, stop, meter
        self._journal, self._progress = journal, progress
        self._others = Others(ledger, journal.driver)
        self.tally = Tally(len(todo), bytes_left=sum(item.source.num_bytes for item in todo))
        self._lock = threading.RLock()
        # Two runs that begin at the same end would meet at every show.
        self._todo = deque(reversed(todo) if self._others.are_there() else todo)
        self._later: list[tuple[float, Todo]] = []
        self._shows = Shows()
        self._hearing: dict[str, Todo] = {}
        self._num_workers = 0
        self._failures = Failures(spec.attempts)
        self._fatal: AshaError | None = None
        self._beats = Beats(planner.work)
        self._tell_at = time.monotonic() + TELL_EVERY_S
        self._known: Records | None = None
        self._num_calls, self._looked = 1, float("-inf")
        self._hearers = Hands("asha-hear", self._give_up)
        self._finishers = Hands("asha-finish", self._give_up)

    def work(self, job: WorkerJob) -> None:
        """Work until all shows have ended.

        Raises:
            AshaError: what hinders all of them.
        """
        watch = Watch(
            tell=self._journal.tell,
            on_lonely=self._tell_lonely,
            on_crew=self._hear_crew,
            on_given_up=self._hear_given_up,
            render="archive",
        )
        try:
            for segment in self._executor.render(job, self, watch):
                for show in self._shows.hear_segment(segment):
                    self._finishers.give(partial(self._finish, show))
                reach("committed")
        finally:
            self._stop.end.set()  # where all went well, nobody is at anything any more
            self._hearers.close(HEARING_S)
            self._finishers.close(PUBLISHING_S)
            self._hear_crew(0, 0)
            self.report()

    def __next__(self) -> ChunkTask | None:
        """The next chunk; None where there is none yet."""
        with self._lock:
            if self._fatal is not None:
                raise self._fatal
            self._look_at_executor()
            self._begin_shows()
            task = self._shows.next_task()
            if task is None and not (self._num_unplanned() or len(self._shows)):
                raise StopIteration
            return task

    def __length_hint__(self) -> int:
        """Chunks that wait, and one for each show that is not planned yet."""
        with self._lock:
            return self._shows.num_waiting + self._num_unplanned()

    def _num_unplanned(self) -> int:
        return len(self._todo) + len(self._later) + len(self._hearing)

    def _begin_shows(self) -> None:
        """Have as many shows heard as keep the workers busy."""
        now = time.monotonic()
        self._todo.extend(todo for not_before, todo in self._later if not_before <= now)
        self._later = [item for item in self._later if item[0] > now]
        backlog = max(MIN_BACKLOG, 2 * self._num_workers + 2)
        while (
            self._todo
            and len(self._hearing) < self._num_calls
            and self._shows.num_waiting < backlog
            and len(self._shows) + len(self._hearing) < MAX_OPEN + 2 * self._num_workers
            and (not self._hearing or self._num_open_frames() < MAX_OPEN_FRAMES)
        ):
            todo = self._todo.popleft()
            self._hearing[todo.show_id] = todo
            self._hearers.give(partial(self._prepare, todo))

    def _num_open_frames(self) -> float:
        """Of all shows in hand; of those that are not heard yet, as far as their bytes tell."""
        heard_bytes = sum(todo.source.num_bytes for todo in self._hearing.values())
        fps = float(Fraction(self._spec.video.fps))
        return self._shows.num_frames + heard_bytes / USUAL_BYTES_PER_S * fps

    def _look_at_executor(self) -> None:
        """Be as many threads as there are places to work."""
        if time.monotonic() - self._looked > LOOK_EVERY_S:
            self._looked = time.monotonic()
            self._num_calls = min(MAX_CALLS, self._executor.num_calls())
            for hands in (self._hearers, self._finishers):
                hands.grow(self._num_calls)

    def _prepare(self, todo: Todo) -> None:
        """Hear and plan a show, and let its chunks be rendered."""
        began = time.monotonic()
        try:
            if not self._is_elsewhere(todo):
                planned = self._planner.plan(todo, began)
                if isinstance(planned, Show):
                    self._begin(planned)
                else:
                    self._end(todo, planned)
        except Exception as error:  # noqa: BLE001 (one show's failure is not the archive's)
            self._fail(todo, _own(error), began)
        finally:
            with self._lock:
                self._hearing.pop(todo.show_id, None)
                if self._fatal is None and not self._stop.end.is_set():
                    self._begin_shows()

    def _is_elsewhere(self, todo: Todo) -> bool:
        """Whether another run has a show in hand, or has done it since this one looked."""
        if self._others.have(todo.source.key):
            with self._lock:
                self._later.append((time.monotonic() + ELSEWHERE_S, todo))
            return True
        try:
            record = self._ledger.read(todo.show_id)
        except (NotFoundError, ManifestError):
            return False
        before = todo.before
        is_known = before is not None and before.time == record.time
        if not todo.is_settled_by(record) or (is_known and not self._is_back(todo, record)):
            return False
        self._keep(record, todo, elsewhere=True)
        return True

    def _is_back(self, todo: Todo, record: ShowRecord) -> bool:
        """Whether what was gone is there: another run was just about to put it in its place."""
        uri = join(self._spec.output, record.output)
        files = (uri, f"{uri}.json")
        return todo.why == "gone" and all(storage_of(file).size(file) for file in files)

    def _begin(self, show: Show) -> None:
        self._planner.work.write_manifest(show.plan.manifest)
        self._beats.begin(show)
        reach("planned")
        if not self._shows.add(show):
            self._finishers.give(partial(self._finish, show))

    def _finish(self, show: Show) -> None:
        """Put a show in its place; what proves damaged is rendered again."""
        try:
            if self._is_forgotten(show.todo):
                self._skip(show.todo)
            elif not self._put_in_place(show):
                return
        except Exception as error:  # noqa: BLE001 (one show's failure is not the archive's)
            self._fail(show.todo, _own(error), show.began, show)
        self._put_down(show)

    def _put_in_place(self, show: Show) -> bool:
        """Finish a show; False where some of it must be rendered again first."""
        try:
            finished = self._executor.call(finish_show, self._finish_job(show), self._stop)
        except SegmentError as error:
            show.num_rounds += 1
            if show.num_rounds >= MAX_ROUNDS or not error.chunk_ids:
                raise
            self._journal.tell("segments-damaged", chunk_ids=error.chunk_ids, error=str(error))
            for chunk_id in error.chunk_ids:
                self._planner.work.forget_segment(chunk_id)
            self._shows.forget_segments(show, error.chunk_ids)
            return False
        before = show.todo.before
        if before is not None:  # what an earlier version has left under other names
            remove_files(self._ledger, self._spec.output, before, finished.files)
        record = outcome.done(show, finished, self._planner.work.uri)
        if self._is_forgotten(show.todo):  # somebody has taken it down just now
            remove_files(self._ledger, self._spec.output, record)
            self._skip(show.todo)
        else:
            self._end(show.todo, record)
        return True

    def _is_forgotten(self, todo: Todo) -> bool:
        """Whether somebody has taken a show down since this run began."""
        if todo.why == "asked":
            return False
        with suppress(NotFoundError, ManifestError):
            return self._ledger.read(todo.show_id).state == "forgotten"
        return False

    def _finish_job(self, show: Show) -> FinishJob:
        assembly = AssemblyJob(
            manifest=show.plan.manifest,
            segments=show.ordered_segments(),
            audio=show.spec.audio,
            output=show.spec.output,
            work=self._planner.work.uri,
            model_summary={"uri": show.spec.model, "training": dict(show.training)},
            tags=show.heard.tags,
            num_replaced=show.sounding.num_replaced,
        )
        return FinishJob(
            assembly=assembly,
            archive=self._spec.output,
            show_id=show.show_id,
            name=show.name,
            claim=show.claim,
            fresh=self._spec.run.fresh,
        )

    def _put_down(self, show: Show) -> None:
        self._shows.drop(show)
        self._beats.end(show)

    def _end(self, todo: Todo, record: ShowRecord) -> None:
        """A show has ended for this run."""
        self._ledger.write(record)
        self._keep(record, todo)

    def _skip(self, todo: Todo) -> None:
        """A show is not to be made after all."""
        self._keep(ShowRecord(todo.show_id, "forgotten", todo.source.key), todo)

    def _keep(self, record: ShowRecord, todo: Todo, *, elsewhere: bool = False) -> None:
        with self._lock:
            tally = self.tally
            tally.done += record.state == "done"
            tally.elsewhere += elsewhere
            tally.parked += record.state == "parked"
            tally.skipped += record.state in ("skipped", "forgotten")
            tally.bytes_left -= todo.source.num_bytes
            if record.state == "done" and not elsewhere:
                tally.sound_s += record.duration_s
                tally.chunks += record.chunks
                tally.reused_chunks += record.reused_chunks
                self._failures.forget()
            is_due = time.monotonic() > self._tell_at
            if is_due:
                self._tell_at = float("inf")
        reason = {"reason": record.reason} if record.reason else {}
        self._journal.tell(f"show-{record.state}", show=record.key, elsewhere=elsewhere, **reason)
        self._progress.advance(1, record.key)
        self.report()
        if is_due:
            self._finishers.give(self._tell)

    def _tell(self) -> None:
        """Write what people look at, and the index, without which the next run begins slowly."""
        began = time.monotonic()
        try:
            self._known = tell(self._ledger, self._spec.output, self._known)
        except AshaError as error:
            self._progress.note(f"{error}; it is tried again later")
        finally:
            pause_s = max(TELL_EVERY_S, TELL_PAUSE * (time.monotonic() - began))
            self._tell_at = time.monotonic() + pause_s

    def _fail(self, todo: Todo, error: AshaError, began: float, show: Show | None = None) -> None:
        """Try a show again later, or park it for a person to look at."""
        if self._stop.end.is_set():
            return
        if self._is_forgotten(todo):
            self._skip(todo)
            return
        fate, told = self._failures.judge(todo, error)
        if fate == Fate.END:
            self._give_up(told)
            return
        work = self._planner.work.uri
        state: ShowState = "parked" if fate == Fate.PARK else "failed"
        record = outcome.failed(todo, state, str(told), began, show, work)
        if fate == Fate.PARK:
            self._progress.note(f"{todo.source.key} is parked: {told}")
            self._end(todo, record)
            return
        self._ledger.write(record)
        self._journal.tell(
            "show-failed", show=todo.source.key, reason=str(told), attempt=record.attempts
        )
        with self._lock:
            self.tally.failed += 1
            not_before = time.monotonic() + PAUSE_S * 2 ** (record.attempts - 1)
            self._later.append((not_before, todo.after(record)))

    def _give_up(self, error: Exception) -> None:
        """What hinders all shows, such as a ledger that cannot be written."""
        with self._lock:
            self._fatal = self._fatal or _own(error)

    def _hear_given_up(self, task: ChunkTask, error: AshaError) -> None:
        for show in self._shows.wanting(task.chunk.chunk_id):
            self._fail(show.todo, error, show.began, show)
            self._put_down(show)

    def _hear_crew(self, num_workers: int, _num_waiting: int) -> None:
        self._num_workers = num_workers
        self._meter.hear({"workers": num_workers})
        self._progress.tell(workers=num_workers)
        self._journal.status(workers=num_workers)

    def _tell_lonely(self) -> None:
        self._progress.note("no worker is ready: waiting for the cluster to have room for one")

    def report(self) -> None:
        """Tell how far it is, for the next heartbeat."""
        with self._lock:
            tally = self.tally
            said = {
                "shows": tally.shows,
                "shows_done": tally.done,
                "shows_failed": tally.failed,
                "shows_parked": tally.parked,
                "sound_s": round(tally.sound_s, 3),
                "bytes_left": tally.bytes_left,
            }
        self._meter.count()
        used: dict[str, float] = {"gpu_s": self._meter.gpu_s, "cpu_s": self._meter.cpu_s}
        if self._meter.cost is not None:
            used["cost"] = self._meter.cost
        with self._lock:
            hearing = [todo.source.key for todo in self._hearing.values()]
            in_hand = [*self._shows.keys(), *hearing]
        self._journal.status(**said, **used, in_hand=in_hand)
        self._progress.tell(**said)

    def look(self) -> None:
        """Every few seconds, in the journal's thread: say what is in hand, and that it lives."""
        self.report()
        self._beats.beat()


def _own(error: Exception) -> AshaError:
    if isinstance(error, AshaError):
        return error
    return FarmError(f"working on an archive: unexpected {error!r}; report it")
