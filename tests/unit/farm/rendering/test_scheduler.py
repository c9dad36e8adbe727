"""What the scheduler does with chunks and workers, on a clock and a crew of the test's own."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asha_ray.errors import EncodeError, FarmError, ResourceError, StorageError
from asha_ray.farm.rendering import scheduler
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
from asha_ray.farm.rendering.scheduler import Scheduler, Watch
from asha_ray.farm.rendering.task import ChunkTask
from asha_ray.values import Chunk, Segment

FRAMES = 60
NO_LATENTS = np.zeros((0, 4), np.float32)


def tasks(count: int) -> list[ChunkTask]:
    return [
        ChunkTask(Chunk(index, index * FRAMES, (index + 1) * FRAMES, f"id{index}"), NO_LATENTS)
        for index in range(count)
    ]


def segment_of(task: ChunkTask, worker: Worker) -> Segment:
    return Segment(task.chunk.chunk_id, "0" * 64, 1, FRAMES, 1.0, f"w{worker}")


Outcome = Event | Callable[["Simulation", int, ChunkTask], Event]


@dataclass
class Simulation:
    """A crew on a clock that only `wait` moves.

    `script` says what becomes of a chunk each time it is given: seconds, and an event's kind.
    `rooms` says from which second on there is other room than for `num_workers`.
    """

    num_workers: int = 2
    seconds: float = 5.0
    start_s: float = 1.0
    script: dict[tuple[int, int], tuple[float, str]] = field(default_factory=dict)
    starts: deque[str] = field(default_factory=deque)
    drains: dict[int, tuple[float, float]] = field(default_factory=dict)
    rooms: dict[float, int | None] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.due: list[tuple[float, int, Event]] = []
        self.given: list[tuple[float, int, int]] = []
        self.times: Counter[int] = Counter()
        self.alive: set[int] = set()
        self.ended: list[int] = []
        self.ended_at: list[float] = []
        self.taken_back: list[int] = []
        self.holding: dict[int, int] = {}
        self.peak = 0
        self.asked: list[int | None] = []
        self.count = 0

    def clock(self) -> float:
        return self.now

    def room(self, most: int | None) -> int | None:
        self.asked.append(most)
        begun = [since for since in self.rooms if since <= self.now]
        room = self.rooms[max(begun)] if begun else self.num_workers
        return room if room is None or most is None else min(room, most)

    def num_places(self) -> int:
        return self.num_workers

    def start(self) -> int:
        self.count += 1
        worker = self.count
        self.alive.add(worker)
        fate = self.starts.popleft() if self.starts else "ready"
        events: dict[str, Event] = {
            "ready": Ready(worker, f"w{worker}"),
            "waits": Ready(worker, f"w{worker}"),
            "dies": Lost(worker, "killed"),
            "refuses": Refused(worker, "it is an abacus"),
        }
        self._later(100.0 if fate == "waits" else self.start_s, worker, events[fate])
        return worker

    def give(self, worker: Worker, task: ChunkTask) -> None:
        assert isinstance(worker, int)
        assert worker in self.alive
        assert worker not in self.holding, "one chunk at a time"
        index = task.chunk.index
        self.given.append((self.now, worker, index))
        assert task.may_be_there == (self.times[index] > 0), "who comes later must look"
        self.holding[worker] = index
        self.peak = max(self.peak, len(self.holding))
        self.times[index] += 1
        seconds, fate = self.script.get((index, self.times[index]), (self.seconds, "done"))
        self._later(seconds / 2, worker, Made(worker, FRAMES // 2))
        events: dict[str, Event] = {
            "done": Done(worker, segment_of(task, worker)),
            "fails": Failed(worker, EncodeError(f"on purpose ({self.times[index]})")),
            "hopeless": Failed(worker, ResourceError("too large")),
            "no storage": Failed(worker, StorageError("writing x: no")),
            "dies": Lost(worker, "killed"),
            "node dies": Lost(worker, "node gone", blameless=True),
        }
        self._later(seconds, worker, events[fate])

    def take_back(self, worker: Worker) -> None:
        assert isinstance(worker, int)
        self.taken_back.append(worker)
        self.due = [item for item in self.due if item[1] != worker]
        self._later(0.1, worker, Failed(worker, FarmError("it was stopped")))

    def end(self, worker: Worker) -> None:
        assert isinstance(worker, int)
        self.alive.discard(worker)
        self.ended.append(worker)
        self.ended_at.append(self.now)
        self.due = [item for item in self.due if item[1] != worker]

    def leaving(self) -> Mapping[Worker, float]:
        return {
            worker: left_s
            for worker, (since, left_s) in self.drains.items()
            if worker in self.alive and self.now >= since
        }

    def wait(self, timeout_s: float) -> list[Event]:
        until = self.now + timeout_s
        self.due.sort(key=lambda item: item[0])
        if not self.due or self.due[0][0] > until:
            self.now = until
            return []
        at, worker, event = self.due.pop(0)
        self.now = max(self.now, at)
        if not isinstance(event, Made | Ready):
            self.holding.pop(worker, None)
        if isinstance(event, Lost):
            self.alive.discard(worker)
            self.due = [item for item in self.due if item[1] != worker]
        return [event]

    def _later(self, seconds: float, worker: int, event: Event) -> None:
        self.due.append((self.now + seconds, worker, event))


@dataclass
class Heard:
    """What a render's watch hears."""

    frames: int = 0
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lonely: int = 0

    def watch(self) -> Watch:
        def count(num_frames: int) -> None:
            self.frames += num_frames

        def alone() -> None:
            self.lonely += 1

        return Watch(count, lambda event, **fields: self.events.append((event, fields)), alone)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


def run(crew: Simulation, num_chunks: int) -> tuple[list[str], Heard]:
    heard = Heard()
    done = []
    for segment in Scheduler(crew, crew.clock).run(iter(tasks(num_chunks)), heard.watch()):
        done.append(segment.chunk_id)
        assert crew.now < 10_000
    return done, heard


def test_every_chunk_is_rendered_once() -> None:
    crew = Simulation(num_workers=3)
    done, heard = run(crew, 20)

    assert sorted(done) == sorted(f"id{index}" for index in range(20))
    assert set(crew.times.values()) == {1}
    assert heard.frames == 20 * FRAMES
    assert crew.count == 3
    assert crew.peak == 3
    assert len(heard.named("chunk-done")) == len(heard.named("chunk-started")) == 20


def test_tasks_are_drawn_only_as_workers_become_free() -> None:
    """A show's latents would not fit into memory at once."""
    crew = Simulation(num_workers=2)
    drawn = 0

    def lazily() -> Any:
        nonlocal drawn
        for task in tasks(30):
            drawn += 1
            yield task

    for number, _ in enumerate(Scheduler(crew, crew.clock).run(lazily()), 1):
        assert drawn <= number + 2


def test_where_all_is_there_no_worker_is_waited_for() -> None:
    crew = Simulation()
    assert run(crew, 0)[0] == []
    assert crew.count == 0


@pytest.mark.parametrize("fate", ["dies", "node dies"])
def test_a_lost_workers_chunk_goes_to_another(fate: str) -> None:
    crew = Simulation(script={(3, 1): (2.0, fate)})
    done, heard = run(crew, 8)

    assert sorted(done) == sorted(f"id{index}" for index in range(8))
    assert crew.times == Counter({index: 2 if index == 3 else 1 for index in range(8)})
    assert crew.count == 3, "one was started in its place"
    assert heard.frames == 8 * FRAMES
    (lost,) = heard.named("worker-lost")
    assert lost["node_lost"] == (fate == "node dies")


def test_a_chunk_that_fails_twice_is_done_at_the_third() -> None:
    crew = Simulation(script={(1, 1): (1, "fails"), (1, 2): (1, "no storage")})
    done, heard = run(crew, 4)

    assert len(done) == 4
    assert [fields["attempt"] for fields in heard.named("chunk-failed")] == [1, 2]
    times = [when for when, _, index in crew.given if index == 1]
    assert times[1] - times[0] >= 1 + scheduler.RETRY_PAUSE_S
    assert times[2] - times[1] >= 1 + 4 * scheduler.RETRY_PAUSE_S
    assert heard.frames == 4 * FRAMES


def test_a_chunk_that_fails_three_times_ends_the_render_with_its_frames() -> None:
    crew = Simulation(script={(1, number): (1, "fails") for number in (1, 2, 3)})

    with pytest.raises(EncodeError) as caught:
        run(crew, 50)

    assert "frames 60 to 119 failed 3 times: on purpose (3)" in str(caught.value)
    assert "before that: on purpose (1); on purpose (2)" in str(caught.value)
    assert crew.times[1] == 3
    assert max(crew.times) < 20, "it ends at once, not after all other chunks"


def test_what_cannot_be_helped_is_not_tried_again() -> None:
    crew = Simulation(script={(0, 1): (1, "hopeless")})
    with pytest.raises(ResourceError, match="frames 0 to 59 failed: too large"):
        run(crew, 5)
    assert crew.times[0] == 1


def test_lost_workers_are_not_the_chunks_fault() -> None:
    script = {(0, number): (1.0, "dies") for number in range(1, scheduler.MAX_LOSSES)}
    crew = Simulation(script=script)
    assert len(run(crew, 3)[0]) == 3


def test_lost_nodes_count_for_little() -> None:
    script = {(0, number): (1.0, "node dies") for number in range(1, scheduler.MAX_NODE_LOSSES)}
    crew = Simulation(script=script)
    assert len(run(crew, 3)[0]) == 3


def test_a_chunk_that_kills_every_worker_ends_the_render() -> None:
    script = {(0, number): (1.0, "dies") for number in range(1, 99)}
    with pytest.raises(FarmError, match=r"frames 0 to 59: 10 workers died over it \(killed\)"):
        run(Simulation(script=script, num_workers=1), 3)


def test_workers_that_die_at_their_start_are_replaced_later_and_later() -> None:
    crew = Simulation(num_workers=1, starts=deque(["dies", "dies", "dies"]))
    done, _ = run(crew, 1)
    assert len(done) == 1
    assert crew.now > 3 * crew.start_s + 0.25 + 0.5 + 1


def test_workers_that_never_become_ready_end_the_render() -> None:
    crew = Simulation(num_workers=1, starts=deque(["dies"] * 9))
    with pytest.raises(FarmError, match="4 died before they were ready"):
        run(crew, 1)


def test_a_worker_of_another_kind_is_not_asked_again() -> None:
    crew = Simulation(num_workers=3, starts=deque(["refuses", "ready", "refuses"]))
    done, _ = run(crew, 10)
    assert len(done) == 10
    assert crew.count == 3
    assert sorted(crew.ended) == [1, 3]


def test_who_refused_is_not_counted_for_ever() -> None:
    """Two nodes of another kind leave; then the only good worker dies."""
    crew = Simulation(
        num_workers=3, starts=deque(["ready", "refuses", "refuses"]), script={(4, 1): (1, "dies")}
    )
    work = Scheduler(crew, crew.clock).run(iter(tasks(8)))
    for _ in range(3):
        next(work)
    crew.num_workers = 1
    assert len(list(work)) == 5


def test_a_chunk_that_takes_every_node_along_ends_the_render() -> None:
    """A machine that runs out of memory looks like one that was taken away."""
    script = {(0, number): (1.0, "node dies") for number in range(1, 99)}
    with pytest.raises(FarmError, match=r"frames 0 to 59: 30 workers died over it"):
        run(Simulation(script=script), 3)


def test_where_all_refuse_the_render_ends() -> None:
    crew = Simulation(num_workers=2, starts=deque(["refuses"] * 2))
    with pytest.raises(FarmError, match="rendering: it is an abacus"):
        run(crew, 1)


class TestTwoKindsOfNodes:
    """A job may have one worker, and Ray lays it on a node whose device is not the render's."""

    def test_another_is_started_elsewhere(self) -> None:
        """Whoever refused keeps its place until then, or the next would be laid there as well."""
        crew = Simulation(num_workers=2, rooms={0.0: 1}, starts=deque(["refuses", "waits"]))
        work = Scheduler(crew, crew.clock).run(iter(tasks(3)))
        next(work)
        assert crew.count == 2
        assert len(list(work)) == 2
        assert crew.ended == [1]

    def test_also_for_the_last_chunk(self) -> None:
        crew = Simulation(num_workers=3, starts=deque(["refuses", "refuses"]))
        done, heard = run(crew, 1)
        assert len(done) == 1
        assert crew.count == 3
        assert crew.ended == [2, 1]
        assert len(heard.named("worker-refused")) == 2

    def test_a_place_is_not_kept_from_others_for_long(self) -> None:
        crew = Simulation(num_workers=2, rooms={0.0: 1}, starts=deque(["refuses", "waits"]))
        plan = Scheduler(crew, crew.clock).run(iter(tasks(1)))
        next(plan)
        assert crew.ended_at[0] <= scheduler.LONELY_S + 3 * scheduler.REVIEW_S

    def test_nor_by_who_may_have_none_any_more(self) -> None:
        crew = Simulation(
            num_workers=2, rooms={0.0: 1, 3.0: 0, 200.0: 1}, starts=deque(["refuses"])
        )
        assert len(run(crew, 1)[0]) == 1
        assert 1 in crew.ended

    def test_where_every_place_has_refused_the_render_ends(self) -> None:
        crew = Simulation(num_workers=3, rooms={0.0: 1}, starts=deque(["refuses"] * 9))
        with pytest.raises(FarmError, match="rendering: it is an abacus"):
            run(crew, 5)
        assert crew.count == 3

    def test_where_none_but_those_that_refuse_ever_are_free_it_ends_as_well(self) -> None:
        """Others hold a hundred places, and this job's is refused over and over."""
        crew = Simulation(num_workers=100, rooms={0.0: 1}, starts=deque(["refuses"] * 999))
        crew.num_places = lambda: 2 if crew.count > 20 else 100  # type: ignore[method-assign]
        with pytest.raises(FarmError, match="rendering: it is an abacus"):
            run(crew, 5)
        assert crew.now / crew.count >= scheduler.REVIEW_S / 2, "it does not spin"


def test_the_crew_grows_when_nodes_join() -> None:
    crew = Simulation(num_workers=1)
    work = Scheduler(crew, crew.clock).run(iter(tasks(20)))
    next(work)
    crew.num_workers = 4
    assert len(list(work)) == 19
    assert crew.count == 4
    assert crew.peak == 4


def test_a_slow_chunk_is_repeated_near_the_end_and_the_faster_one_counts() -> None:
    crew = Simulation(num_workers=2, script={(7, 1): (10_000.0, "done")})
    done, heard = run(crew, 10)

    assert sorted(done) == sorted(f"id{index}" for index in range(10))
    assert crew.times[7] == 2
    (repeated,) = heard.named("chunk-repeated")
    assert repeated["chunk"] == 7
    assert repeated["after_s"] > scheduler.SLOW_FACTOR * crew.seconds
    assert crew.taken_back == [worker for _, worker, index in crew.given if index == 7][:1]
    assert heard.frames == 10 * FRAMES


def test_nothing_is_repeated_while_chunks_wait() -> None:
    crew = Simulation(num_workers=2, script={(0, 1): (60.0, "done")})
    run(crew, 30)
    assert crew.times[0] == 1


def test_a_leaving_worker_finishes_its_chunk_and_gets_no_other() -> None:
    crew = Simulation(num_workers=2, drains={1: (8.0, 600.0)})
    done, heard = run(crew, 12)

    assert len(done) == 12
    assert crew.taken_back == []
    assert [index for when, worker, index in crew.given if worker == 1 and when > 10.0] == []
    assert 1 in crew.ended
    assert crew.count == 3, "another was started elsewhere"
    assert set(crew.times.values()) == {1}
    assert heard.named("worker-leaving")[0]["seconds_left"] == 600.0


def test_a_chunk_that_a_leaving_worker_could_not_finish_is_given_back() -> None:
    crew = Simulation(num_workers=2, drains={1: (8.0, 0.5)})
    done, _ = run(crew, 12)

    assert sorted(done) == sorted(f"id{index}" for index in range(12))
    assert crew.taken_back == [1]
    assert sorted(crew.times.values()) == [1] * 11 + [2]
    assert all(worker != 1 for when, worker, _ in crew.given if when > 8.0)


def test_a_person_is_told_that_no_worker_comes() -> None:
    crew = Simulation(num_workers=1, start_s=100.0)
    done, heard = run(crew, 1)
    assert len(done) == 1
    assert heard.lonely == 3


FATES = st.sampled_from(["done", "done", "done", "fails", "dies", "node dies"])


@given(
    num_chunks=st.integers(1, 25),
    num_workers=st.integers(1, 5),
    fates=st.lists(st.tuples(st.integers(0, 24), st.floats(0.1, 300), FATES), max_size=30),
    starts=st.lists(st.sampled_from(["ready", "dies", "refuses", "waits"]), max_size=3),
    drains=st.dictionaries(st.integers(1, 6), st.tuples(st.floats(0, 60), st.floats(0, 60))),
    rooms=st.dictionaries(st.floats(0, 200), st.none() | st.integers(0, 5), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_each_chunk_is_yielded_once_or_the_render_says_why(
    num_chunks: int,
    num_workers: int,
    fates: list[tuple[int, float, str]],
    starts: list[str],
    drains: dict[int, tuple[float, float]],
    rooms: dict[float, int | None],
) -> None:
    script: dict[tuple[int, int], tuple[float, str]] = {}
    times: Counter[int] = Counter()
    for index, seconds, fate in fates:
        times[index] += 1
        script[index, times[index]] = seconds, fate
    rooms[300.0] = num_workers  # a share of nothing for ever would be a wait for ever
    crew = Simulation(
        num_workers=num_workers, script=script, starts=deque(starts), drains=drains, rooms=rooms
    )
    own_failures = Counter(index for index, _, fate in fates if fate == "fails")
    deaths = Counter(index for index, _, fate in fates if fate == "dies")

    try:
        done, heard = run(crew, num_chunks)
    except EncodeError:
        assert max(own_failures.values()) >= 3
    except FarmError:
        num_died = max(deaths.values(), default=0) + starts.count("dies")
        assert num_died >= 3 or starts.count("refuses") >= num_workers
    else:
        assert sorted(done) == sorted(f"id{index}" for index in range(num_chunks))
        assert heard.frames == num_chunks * FRAMES


class TestSharing:
    """How a crew shrinks and grows as its share of a cluster does."""

    def test_busy_workers_finish_their_chunk_and_end(self) -> None:
        crew = Simulation(num_workers=4, rooms={12.0: 1})
        done, heard = run(crew, 40)

        assert len(done) == 40
        assert crew.taken_back == [], "what was begun is finished"
        assert set(crew.times.values()) == {1}, "nothing is rendered twice"
        assert heard.frames == 40 * FRAMES
        assert len(crew.ended) == 3
        assert len(heard.named("worker-yielding")) == len(heard.named("worker-ended")) == 3
        seen_by = 12.0 + 2 * scheduler.REVIEW_S + scheduler.POLL_S
        later = {worker for when, worker, _ in crew.given if when > seen_by}
        assert len(later) == 1, "the others are given no chunk more"

    def test_workers_that_were_to_end_stay_where_there_is_room_again(self) -> None:
        crew = Simulation(num_workers=3, seconds=60.0, rooms={5.0: 1, 20.0: 3})
        done, heard = run(crew, 12)

        assert len(heard.named("worker-yielding")) == 2
        assert len(done) == 12
        assert crew.count == 3, "none was started anew"
        assert heard.named("worker-lost") == []
        assert [when for when, _, _ in crew.given[3:6]] == [crew.given[0][0] + 60.0] * 3

    def test_who_is_not_ready_yet_ends_first(self) -> None:
        """The latest: where all are taken it has no place yet, and waits before others."""
        crew = Simulation(num_workers=4, rooms={1.5: 2}, start_s=10.0)
        plan = Scheduler(crew, crew.clock)
        for now in (0.0, 2.0, 4.0, 6.0):
            crew.now = now
            plan.warm_up()
        assert crew.ended == [4, 3]
        assert len(list(plan.run(iter(tasks(6))))) == 6
        assert set(crew.times.values()) == {1}

    def test_a_share_that_is_small_for_a_moment_costs_nothing(self) -> None:
        """Such as while Ray forgets a node that is there."""
        crew = Simulation(num_workers=4, rooms={9.9: 1, 11.9: 4})
        _, heard = run(crew, 40)
        assert crew.asked, "it was seen"
        assert heard.named("worker-yielding") == []
        assert crew.count == 4

    def test_without_a_share_a_job_waits_and_then_goes_on(self) -> None:
        """A preview takes all there is."""
        crew = Simulation(num_workers=2, rooms={8.0: 0, 100.0: 2})
        done, heard = run(crew, 20)

        assert len(done) == 20
        assert set(crew.times.values()) == {1}
        assert heard.frames == 20 * FRAMES
        assert crew.count == 4
        assert not [when for when, _, _ in crew.given if 20.0 < when < 100.0]
        assert heard.lonely == 2, "a person is told why nothing happens"

    def test_where_nobody_can_say_nothing_changes(self) -> None:
        crew = Simulation(num_workers=3, rooms={8.0: None})
        done, _ = run(crew, 20)
        assert len(done) == 20
        assert crew.ended == []
        assert crew.count == 3

    def test_there_are_never_more_workers_than_chunks_left(self) -> None:
        """One that waits for a node would call for a node that nobody needs."""
        crew = Simulation(num_workers=100)
        assert len(run(crew, 3)[0]) == 3
        assert crew.count == 3

    def test_workers_end_where_no_chunk_waits_but_for_one(self) -> None:
        """Their nodes become idle; the one is there if the last chunk is lost."""
        crew = Simulation(num_workers=5, script={(9, 1): (12.0, "dies")})
        done, heard = run(crew, 10)
        assert len(done) == 10
        assert len(crew.ended) == 3
        assert crew.count <= 6
        assert crew.times[9] == 2
        lost_at = next(when for when, _, index in crew.given if index == 9) + 12.0
        assert crew.given[-1][0] == lost_at, "whoever was idle still has it at once"
        assert len(heard.named("worker-lost")) == 1

    def test_a_slow_chunk_gets_a_worker_where_all_are_busy(self) -> None:
        """With several slow ones, and but one idle worker, another is started."""
        script = {(4, 1): (1000.0, "done"), (5, 1): (1000.0, "done")}
        crew = Simulation(num_workers=4, script=script)
        done, heard = run(crew, 8)
        assert len(done) == 8
        assert sorted(fields["chunk"] for fields in heard.named("chunk-repeated")) == [4, 5]
        assert crew.now < 100

    def test_how_many_work_and_wait_is_told(self) -> None:
        crew, told = Simulation(num_workers=2), []
        watch = Watch(on_crew=lambda workers, waiting: told.append((workers, waiting)))
        list(Scheduler(crew, crew.clock).run(iter(tasks(6)), watch))
        assert told[0] == (0, 6)
        assert (2, 4) in told
        assert max(workers for workers, _ in told) == 2
        assert told[-1][1] == 0
        assert len(told) == len(set(told)), "only what has changed"


class Trickle:
    """Chunks of shows, of which one comes now and then; there may be none for a while."""

    def __init__(self, crew: Simulation, times: list[float]) -> None:
        self._crew = crew
        self._waiting = deque(zip(times, tasks(len(times)), strict=True))

    def __iter__(self) -> "Trickle":
        return self

    def __next__(self) -> ChunkTask | None:
        if not self._waiting:
            raise StopIteration
        if self._waiting[0][0] > self._crew.now:
            return None
        return self._waiting.popleft()[1]

    def __length_hint__(self) -> int:
        return len(self._waiting)


def test_chunks_that_come_later_are_waited_for() -> None:
    """An archive's next show may still be listened to when the last chunk of one is rendered."""
    crew = Simulation(num_workers=2)
    segments = list(Scheduler(crew, crew.clock).run(Trickle(crew, [0.0, 20.0, 20.0, 41.0])))
    assert len(segments) == 4
    assert [round(when) for when, *_ in crew.given] == [1, 20, 20, 41]


def test_a_worker_that_waits_for_a_chunk_has_it_as_soon_as_it_comes() -> None:
    """Half a second at each show's end is a tenth of a decoder's time."""
    crew = Simulation(num_workers=2)
    list(Scheduler(crew, crew.clock).run(Trickle(crew, [0.0, 2.0, 3.0, 4.0])))
    late = [when - due for (when, *_), due in zip(crew.given[1:2], [2.0], strict=True)]
    assert max(late) <= scheduler.SHORT_POLL_S + 1e-6


def test_whoever_can_do_without_a_chunk_has_the_others() -> None:
    """One broken show must not end an archive of thousands."""
    script = {(1, attempt): (1.0, "fails") for attempt in (1, 2, 3)} | {(2, 1): (1.0, "hopeless")}
    crew = Simulation(num_workers=2, script=script)
    lost: dict[int, str] = {}

    def give_up(task: ChunkTask, error: Exception) -> None:
        lost[task.chunk.index] = str(error)

    watch = Watch(on_given_up=give_up)
    segments = list(Scheduler(crew, crew.clock).run(tasks(5), watch))
    assert {segment.chunk_id for segment in segments} == {"id0", "id3", "id4"}
    assert sorted(lost) == [1, 2]
    assert "frames 60 to 119 failed 3 times" in lost[1]


def test_a_chunk_that_kills_every_worker_costs_its_own_show_alone() -> None:
    script = {(0, attempt): (1.0, "dies") for attempt in range(1, 30)}
    crew = Simulation(num_workers=2, script=script)
    lost = []
    watch = Watch(on_given_up=lambda task, _: lost.append(task.chunk.index))
    segments = list(Scheduler(crew, crew.clock).run(tasks(3), watch))
    assert lost == [0]
    assert len(segments) == 2
