"""Which worker renders which chunk, and what happens when one is lost: pure policy.

A scheduler knows neither Ray nor storage: workers are a `Crew`'s, Ray's actors or this process.
What a worker was doing when it was lost is given to another; a chunk is given to one that is ready
and stays. At most one chunk is in a worker's hands, so work in flight is bounded by the crew.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import length_hint
from statistics import median
from typing import Any, NoReturn

from asha_ray.errors import AshaError, FarmError, InputError, ResourceError
from asha_ray.farm.rendering.crew import (
    Crew,
    Done,
    Event,
    Failed,
    Lost,
    Made,
    Ready,
    Refused,
    Worker,
)
from asha_ray.farm.rendering.task import ChunkTask
from asha_ray.values import Segment

MAX_ATTEMPTS = 3
"""How often a chunk is tried that fails by itself: a disk may be full for a moment."""
MAX_LOSSES = 10
"""Workers that may die under one chunk, on nodes that live on, before the render ends."""
MAX_NODE_LOSSES = 30
"""Nodes that may go under one chunk without a warning: one that runs out of memory looks so too."""
MAX_FAILED_STARTS = 3
"""Workers that may die one after the other before they were ready."""
MIN_REFUSALS = 4
"""Workers that may refuse one after the other, and twice as many as there are places."""
RETRY_PAUSE_S = 0.5
"""Before a second attempt, and four times as long before the next."""
LONGEST_PAUSE_S = 30.0
REVIEW_S = 2.0
"""How often the crew is asked how many workers it holds and which of them must leave."""
POLL_S = 0.5
SHORT_POLL_S = 0.05
"""The same while a worker is idle for want of a chunk that is yet to come."""
EXHAUSTED = "exhausted"
SLOW_FACTOR, SLOW_S = 2.5, 10.0
"""A chunk that takes so many times the usual, and at least so long, is slow."""
NUM_REMEMBERED = 101
LONELY_S = 30.0
"""Without a worker for so long, a person is told."""
RETRIES = frozenset({"chunk-failed", "worker-lost"})
"""Events after which something is done once more."""


@dataclass
class _Open:
    """A chunk that is not done yet."""

    task: ChunkTask
    holders: set[Worker] = field(default_factory=set)
    errors: list[AshaError] = field(default_factory=list)
    num_losses: int = 0
    num_node_losses: int = 0


@dataclass
class _Hand:
    """What a worker is at."""

    index: int
    began: float
    num_frames: int = 0
    unwanted: bool = False


def _ignore(_: str, **__: Any) -> None:
    """Tell nobody."""


def _raise(_: ChunkTask, error: AshaError) -> NoReturn:
    """End the whole run."""
    raise error


@dataclass(frozen=True)
class Watch:
    """Who hears how chunks fare.

    Attributes:
        on_frames: of frames as they are made, and, as a negative number, of those that are lost.
        tell: of events by name, with fields; see `Journal.tell`.
        on_lonely: once in a while, that there is no worker.
        on_crew: of the workers that are ready or at work, and of the chunks that nobody has begun.
        on_given_up: of a chunk that cannot be rendered, and why; if it returns, the rest goes on.
        render: whose chunks they are, for whoever counts.
        num_reused: chunks of it that were there already, likewise.
    """

    on_frames: Callable[[int], None] = lambda _: None
    tell: Callable[..., None] = _ignore
    on_lonely: Callable[[], None] = lambda: None
    on_crew: Callable[[int, int], None] = lambda _workers, _waiting: None
    on_given_up: Callable[[ChunkTask, AshaError], None] = _raise
    render: str = ""
    num_reused: int = 0


class Scheduler:
    """Works through chunks with a crew, until all are done or one cannot be.

    Args:
        crew: who does it.
        clock: seconds.
    """

    def __init__(self, crew: Crew, clock: Callable[[], float] = time.monotonic) -> None:
        self._crew, self._clock, self._watch = crew, clock, Watch()
        self._open: dict[int, _Open] = {}
        self._again: deque[tuple[float, int]] = deque()
        self._hands: dict[Worker, _Hand] = {}
        self._starting: dict[Worker, None] = {}
        self._idle: list[Worker] = []
        self._leaving: set[Worker] = set()
        self._yielding: set[Worker] = set()
        self._waiting: Iterator[ChunkTask | None] | None = None
        self._told: tuple[int, int] | None = None
        self._names: dict[Worker, str] = {}
        self._seconds: deque[float] = deque(maxlen=NUM_REMEMBERED)
        self._num_failed_starts = self._num_quick_losses = self._num_refused = 0
        self._num_refused_in_a_row = 0
        self._refusing: list[Worker] = []
        self._start_after = self._review_at = 0.0
        self._room = self._limit = 0
        self._lonely_since: float | None = None

    def warm_up(self) -> None:
        """Ask for workers now, or let some go; what they need to be ready they do meanwhile."""
        self._review()

    def run(
        self, tasks: Iterable[ChunkTask | None], watch: Watch | None = None
    ) -> Iterator[Segment]:
        """Segments as they are committed, each chunk's once, in any order.

        Args:
            tasks: drawn one by one, as workers become free; None where there is none yet. Where its
                iterator has a length hint, there are no more workers than chunks to do.
            watch: hears how it goes.

        Raises:
            AshaError: of the chunk that failed three times by itself; the message names its frames.
            FarmError: if workers die over and over.
        """
        self._watch = watch or Watch()
        self._told, self._review_at = None, 0.0
        waiting = self._waiting = iter(tasks)
        while True:
            try:
                if not self._open:  # no worker need be waited for where all is there
                    task = next(waiting)
                    if task is not None:
                        self._again.append((0.0, self._take(task)))
            except StopIteration:
                return
            self._review()
            is_short = self._hand_out(waiting)
            self._tell_crew()
            for event in self._crew.wait(SHORT_POLL_S if is_short else POLL_S):
                segment = self._hear(event)
                if segment is not None:
                    yield segment

    def _take(self, task: ChunkTask) -> int:
        self._open[task.chunk.index] = _Open(task)
        return task.chunk.index

    def _review(self) -> None:
        """Now and then: fill the crew up or let some go, and see who must leave."""
        now = self._clock()
        if now < self._review_at:
            return
        self._review_at = now + REVIEW_S
        self._see_who_leaves()
        needed = self._num_needed()
        # Near the end one idle worker stays, for a chunk that is lost or slow; none is started.
        spare = bool(self._idle and self._hands)
        most = None if needed is None else needed + spare
        room = self._crew.room(most)
        if room is not None:
            if not room:
                self._end_refusing()
            if room not in (most, self._limit):  # other nodes: whoever refused may be gone
                self._limit, self._num_refused = room, 0
            self._let_some_go(max(room, self._room))  # not for what may be over in a moment
            self._fill_up(room if needed is None else min(room, needed), now)
            self._room = room
        self._notice_loneliness(now)

    def _num_needed(self) -> int | None:
        """Workers that have something to do; None where nobody knows."""
        num_waiting = self._num_waiting()
        if num_waiting is None:
            return None
        now = self._clock()
        return num_waiting + len(self._hands) + len(self._slow_ones(now))

    def _num_waiting(self) -> int | None:
        """Chunks that no worker has in hand; None where nobody knows."""
        left = -1 if self._waiting is None else length_hint(self._waiting, -1)
        if left < 0:
            return None
        return left + sum(index in self._open for _, index in self._again)

    def _fill_up(self, room: int, now: float) -> None:
        """Keep those who were to end, then start new ones."""
        staying = self._num_staying()
        for worker in list(self._yielding)[: max(0, room - staying)]:
            self._yielding.remove(worker)
        if now < self._start_after:
            return
        num_there = len(self._starting) + len(self._idle) + len(self._hands)
        num_missing = room - num_there - self._num_refused
        if room and not num_there:  # whoever refused keeps its place, so one comes elsewhere
            num_missing = max(1, num_missing)
        for _ in range(num_missing):
            self._starting[self._crew.start()] = None

    def _let_some_go(self, room: int) -> None:
        """Where there are too many: who has nothing in hand ends, others after their chunk."""
        excess = self._num_staying() - room
        for _ in range(min(excess, len(self._starting) + len(self._idle))):
            if self._starting:
                self._crew.end(self._starting.popitem()[0])  # the latest
            else:
                self._dismiss(self._idle.pop())
            excess -= 1
        staying = self._hands.keys() - self._yielding - self._leaving
        first_done = sorted(staying, key=lambda worker: self._hands[worker].began)
        for worker in first_done[: max(0, excess)]:
            self._yielding.add(worker)
            self._watch.tell("worker-yielding", worker=self._names[worker])

    def _num_staying(self) -> int:
        """Workers, but for those who end after their chunk."""
        num_busy = len(self._hands.keys() - self._yielding - self._leaving)
        return len(self._starting) + len(self._idle) + num_busy

    def _tell_crew(self) -> None:
        """Tell how many are at work and how much waits, where it has changed."""
        there = len(self._idle) + len(self._hands), self._num_waiting() or 0
        if there != self._told:
            self._told = there
            self._watch.on_crew(*there)

    def _notice_loneliness(self, now: float) -> None:
        if self._idle or self._hands:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
        elif now - self._lonely_since > LONELY_S:
            self._lonely_since = now
            self._num_refused = 0  # where nobody works, whoever comes is asked
            self._end_refusing()
            self._watch.tell("no-worker")
            self._watch.on_lonely()

    def _see_who_leaves(self) -> None:
        for worker, left_s in self._crew.leaving().items():
            hand = self._hands.get(worker)
            if worker in self._idle:
                self._idle.remove(worker)
                self._dismiss(worker)
            elif hand is not None and not hand.unwanted and worker not in self._leaving:
                self._leaving.add(worker)
                self._watch.tell("worker-leaving", worker=self._names[worker], seconds_left=left_s)
                # Its chunk is given back at once where it could not be finished in time.
                if self._clock() - hand.began + left_s < 1.2 * self._usual_s() + 1:
                    self._give_up(worker)
                    self._requeue(hand.index, 0.0)

    def _dismiss(self, worker: Worker) -> None:
        self._watch.tell("worker-ended", worker=self._names.pop(worker, ""))
        self._leaving.discard(worker)
        self._yielding.discard(worker)
        self._crew.end(worker)

    def _hand_out(self, waiting: Iterator[ChunkTask | None]) -> bool:
        """Give chunks to whoever is idle; whether somebody stays idle and more may come soon."""
        now = self._clock()
        while self._idle:
            index = self._next_again(now)
            if index is None:
                task = next(waiting, EXHAUSTED)
                if not isinstance(task, ChunkTask):
                    self._repeat_slow_ones(now)
                    return task is None and bool(self._idle)
                index = self._take(task)
            self._give(self._idle.pop(), index)
        return False

    def _next_again(self, now: float) -> int | None:
        for position, (not_before, index) in enumerate(self._again):
            if not_before <= now:
                del self._again[position]
                if index in self._open:
                    return index
                return self._next_again(now)
        return None

    def _give(self, worker: Worker, index: int) -> None:
        entry = self._open[index]
        entry.holders.add(worker)
        self._hands[worker] = _Hand(index, self._clock())
        self._watch.tell("chunk-started", **_about(entry.task), worker=self._names[worker])
        self._crew.give(worker, entry.task)
        # Whoever is given it after this one must look whether this one has finished it, unheard.
        entry.task = replace(entry.task, may_be_there=True)

    def _repeat_slow_ones(self, now: float) -> None:
        """Near the end, let an idle worker try a chunk that takes another too long."""
        for began, index in self._slow_ones(now)[: len(self._idle)]:
            about = _about(self._open[index].task)
            self._watch.tell("chunk-repeated", **about, after_s=round(now - began, 3))
            self._give(self._idle.pop(), index)

    def _slow_ones(self, now: float) -> list[tuple[float, int]]:
        """When they were begun, and which: chunks that take too long, where no other waits."""
        if not self._seconds or self._again:
            return []
        limit_s = max(SLOW_S, SLOW_FACTOR * self._usual_s())
        return sorted(
            (hand.began, hand.index)
            for hand in self._hands.values()
            if not hand.unwanted
            and now - hand.began > limit_s
            and len(self._open[hand.index].holders) == 1
        )

    def _usual_s(self) -> float:
        return median(self._seconds) if self._seconds else float("inf")

    def _hear(self, event: Event) -> Segment | None:
        match event:
            case Ready(worker, name):
                self._starting.pop(worker, None)
                self._idle.append(worker)
                self._names[worker] = name
                self._num_failed_starts = self._num_refused_in_a_row = 0
                self._end_refusing()
                self._watch.tell("worker-ready", worker=name)
            case Refused(worker, reason):
                self._refuse(worker, reason)
            case Made(worker, num_frames):
                self._count(worker, num_frames)
            case Done(worker, segment):
                return self._finish(worker, segment)
            case Failed(worker, error):
                self._fail(worker, error)
            case Lost():
                self._lose(event)
        return None

    def _refuse(self, worker: Worker, reason: str) -> None:
        """Do without a worker; where nobody works it keeps its place, or the next would have it.

        Raises:
            FarmError: if all places that there are have refused, or as good as all.
        """
        self._starting.pop(worker, None)
        self._num_refused += 1  # its place would be filled with another of its kind
        self._num_refused_in_a_row += 1
        self._watch.tell("worker-refused", reason=reason)
        if self._idle or self._hands:
            self._crew.end(worker)
            return
        self._refusing.append(worker)
        if self._starting:
            return
        num_places = self._crew.num_places()
        most = max(MIN_REFUSALS, 2 * num_places)
        if len(self._refusing) >= num_places or self._num_refused_in_a_row >= most:
            raise FarmError(f"rendering: {reason}")

    def _end_refusing(self) -> None:
        while self._refusing:
            self._crew.end(self._refusing.pop())

    def _count(self, worker: Worker, num_frames: int) -> None:
        hand = self._hands.get(worker)
        if hand is not None and not hand.unwanted:
            hand.num_frames += num_frames
            self._watch.on_frames(num_frames)

    def _let_go(self, worker: Worker) -> _Hand | None:
        """What a worker held, which it holds no more."""
        hand = self._hands.pop(worker, None)
        if hand is not None and hand.index in self._open:
            self._open[hand.index].holders.discard(worker)
        return hand

    def _rest(self, worker: Worker) -> None:
        """A worker has its hands free."""
        if worker in self._leaving or worker in self._yielding:
            self._dismiss(worker)
        else:
            self._idle.append(worker)

    def _finish(self, worker: Worker, segment: Segment) -> Segment | None:
        hand = self._let_go(worker)
        self._rest(worker)
        self._num_quick_losses = 0
        if hand is None or hand.index not in self._open:
            return None  # another was faster
        entry = self._open.pop(hand.index)
        seconds = self._clock() - hand.began
        self._seconds.append(seconds)
        self._watch.on_frames(segment.num_frames - hand.num_frames)
        self._watch.tell(
            "chunk-done",
            **_about(entry.task),
            worker=segment.worker,
            seconds=round(seconds, 3),
            bytes=segment.num_bytes,
        )
        for other in entry.holders:
            self._give_up(other)
        return segment

    def _give_up(self, worker: Worker) -> None:
        """A chunk in a worker's hands is not wanted of it any more."""
        hand = self._hands[worker]
        if not hand.unwanted:
            hand.unwanted = True
            self._watch.on_frames(-hand.num_frames)
            hand.num_frames = 0
            self._crew.take_back(worker)
            if hand.index in self._open:
                self._open[hand.index].holders.discard(worker)

    def _requeue(self, index: int, pause_s: float) -> None:
        if not self._open[index].holders:
            self._again.append((self._clock() + pause_s, index))

    def _fail(self, worker: Worker, error: AshaError) -> None:
        hand = self._let_go(worker)
        self._rest(worker)
        if hand is None or hand.unwanted or hand.index not in self._open:
            return
        self._watch.on_frames(-hand.num_frames)
        entry = self._open[hand.index]
        entry.errors.append(error)
        about = _about(entry.task)
        self._watch.tell(
            "chunk-failed", **about, worker=self._names.get(worker, ""), error=str(error),
            attempt=len(entry.errors),
        )  # fmt: skip
        hopeless = isinstance(error, InputError | ResourceError)
        if hopeless or len(entry.errors) >= MAX_ATTEMPTS:
            self._abandon(hand.index, _last_error(entry))
            return
        self._requeue(hand.index, RETRY_PAUSE_S * 4 ** (len(entry.errors) - 1))

    def _abandon(self, index: int, error: AshaError) -> None:
        """Do without a chunk, where whoever asked for it can."""
        entry = self._open.pop(index)
        for other in entry.holders:
            self._give_up(other)
        self._watch.on_given_up(entry.task, error)

    def _lose(self, event: Lost) -> None:
        worker = event.worker
        was_leaving = worker in self._leaving
        blameless = event.blameless or was_leaving
        self._leaving.discard(worker)
        self._yielding.discard(worker)
        name = self._names.pop(worker, "")
        self._watch.tell("worker-lost", worker=name, reason=event.reason, node_lost=blameless)
        with suppress(ValueError):
            self._idle.remove(worker)
        hand = self._let_go(worker)
        was_starting = worker in self._starting
        self._starting.pop(worker, None)
        if blameless:
            self._review_at = 0.0
        else:
            self._pause_starts(was_starting, event.reason)
        if hand is None or hand.unwanted or hand.index not in self._open:
            return
        self._watch.on_frames(-hand.num_frames)
        entry = self._open[hand.index]
        entry.num_losses += not blameless
        entry.num_node_losses += blameless and not was_leaving
        if entry.num_losses >= MAX_LOSSES or entry.num_node_losses >= MAX_NODE_LOSSES:
            num_lost = entry.num_losses + entry.num_node_losses
            error = FarmError(
                f"rendering {_frames(entry.task)}: {num_lost} workers died over it "
                f"({event.reason}); look for what ends them, often too little memory"
            )
            self._abandon(hand.index, error)
            return
        self._requeue(hand.index, 0.0)

    def _pause_starts(self, was_starting: bool, reason: str) -> None:
        """Start a new worker in place of one that died, later each time that nothing comes of it.

        Raises:
            FarmError: if none becomes ready any more.
        """
        if was_starting:
            self._num_failed_starts += 1
            if self._num_failed_starts > MAX_FAILED_STARTS:
                raise FarmError(
                    f"starting a render worker: {self._num_failed_starts} died before they were "
                    f"ready ({reason}); look for what ends them, often too little memory"
                )
        pause_s = min(LONGEST_PAUSE_S, 0.25 * 2**self._num_quick_losses)
        self._num_quick_losses += 1
        self._start_after = self._clock() + pause_s
        self._review_at = min(self._review_at, self._start_after)


def _about(task: ChunkTask) -> dict[str, Any]:
    chunk = task.chunk
    return {"chunk": chunk.index, "frames": [chunk.start, chunk.stop], "chunk_id": chunk.chunk_id}


def _frames(task: ChunkTask) -> str:
    return f"frames {task.chunk.start} to {task.chunk.stop - 1}"


def _last_error(entry: _Open) -> AshaError:
    """A chunk's last error, as what it is, with its frames and earlier reasons."""
    last = entry.errors[-1]
    times = f" {len(entry.errors)} times" if len(entry.errors) > 1 else ""
    told = f"rendering {_frames(entry.task)} failed{times}: {last}"
    others = {str(error) for error in entry.errors} - {str(last)}
    if others:
        told += f"\nbefore that: {'; '.join(sorted(others))}"
    error = type(last)(told)
    error.__cause__ = last
    return error
