"""A job's driver: what it says to storage, and how it ends."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from asha_ray.errors import FarmError, JobError, SpecError
from asha_ray.farm.jobs import drive as module
from asha_ray.farm.jobs.drive import JobProgress, drive
from asha_ray.farm.jobs.meter import Meter
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import Prices, TrainSpec
from asha_ray.storage import journal
from asha_ray.storage.jobs import Jobs
from asha_ray.storage.journal import read_heartbeat, read_log
from tests.unit.farm.jobs.conftest import a_job


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVENTS_EVERY_S", 0.02)
    monkeypatch.setattr(journal, "HEARTBEAT_EVERY_S", 0.02)


@pytest.fixture
def work_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Progress], Any]], None]:
    def work_is(does: Callable[[Progress], Any]) -> None:
        monkeypatch.setattr(module, "_work", lambda _, __, progress: does(progress))

    return work_is


def said(jobs: Jobs, job_id: str) -> list[str]:
    return [line.split("  ", 1)[1] for _, line in read_log(jobs.folder(job_id))]


def beat(jobs: Jobs, job_id: str) -> dict[str, Any]:
    found = read_heartbeat(jobs.folder(job_id))
    assert found is not None
    return dict(found)


def wait() -> None:
    """Work until interrupted."""
    if threading.Event().wait(30):
        raise AssertionError


def test_what_it_does_and_makes_is_told(jobs: Jobs, work_is: Any) -> None:
    job = a_job(jobs)

    def does(progress: Progress) -> dict[str, Any]:
        progress.stage("rendering", 100, "frames")
        progress.tell(frames=100, render_id="abc")
        progress.advance(40)
        progress.note("no beats were found")
        return {"output": "/v.mp4", "frames": 100}

    work_is(does)
    assert drive(job.job_id, jobs.work, 1, NullProgress()) == {"output": "/v.mp4", "frames": 100}
    last = beat(jobs, job.job_id)
    assert (last["state"], last["attempt"], last["kind"]) == ("done", 1, "render")
    assert (last["stage"], last["done"], last["total"]) == ("rendering", 40, 100)
    assert (last["render_id"], last["frames"]) == ("abc", 100)
    assert last["result"] == {"output": "/v.mp4", "frames": 100}
    assert said(jobs, job.job_id) == [
        "rendering 100 frames", "no beats were found", "done: /v.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FarmError("rendering: on purpose"), "failed: rendering: on purpose"),
        (ZeroDivisionError("x"), "failed: unexpected ZeroDivisionError('x')"),
    ],
)
def test_an_error_is_told_and_raised(jobs: Jobs, work_is: Any, error: Exception, told: str) -> None:
    job = a_job(jobs)

    def does(_: Progress) -> None:
        raise error

    work_is(does)
    with pytest.raises(type(error)):
        drive(job.job_id, jobs.work, 1, NullProgress())
    assert beat(jobs, job.job_id)["state"] == "failed"
    assert beat(jobs, job.job_id)["error"] == str(error)
    assert said(jobs, job.job_id)[-1].startswith(told)


def test_a_spec_that_this_version_does_not_know_is_a_told_error(jobs: Jobs) -> None:
    job = a_job(jobs, {"kind": "render", "audio": "a", "model": "m", "output": "o", "sparkle": 1})
    with pytest.raises(SpecError, match="sparkle"):
        drive(job.job_id, jobs.work, 1, NullProgress())
    assert "sparkle" in beat(jobs, job.job_id)["error"]


def test_a_wish_in_storage_ends_it(jobs: Jobs, work_is: Any, quick: None) -> None:
    """Its cluster may not be reached by whoever wishes it."""
    job = a_job(jobs)

    def does(_: Progress) -> None:
        jobs.ask_to_end(job, "you@there")
        wait()

    work_is(does)
    with pytest.raises(KeyboardInterrupt):
        drive(job.job_id, jobs.work, 1, NullProgress())
    last = beat(jobs, job.job_id)
    assert (last["state"], last["reason"]) == ("stopped", "cancelled by you@there")
    assert said(jobs, job.job_id)[-1].endswith(f"`asha-ray jobs retry {job.job_id}` goes on")


def test_it_ends_when_a_later_attempt_was_submitted(jobs: Jobs, work_is: Any, quick: None) -> None:
    """Whoever repeated it could not know that it lives: both would work, and be paid."""
    job = a_job(jobs)

    def does(_: Progress) -> None:
        a_job(jobs, attempt=2)
        wait()

    work_is(does)
    with pytest.raises(KeyboardInterrupt):
        drive(job.job_id, jobs.work, 1, NullProgress())
    assert beat(jobs, job.job_id)["reason"] == "attempt 2 has taken its place"


def test_it_does_not_begin_when_a_later_attempt_was_submitted(jobs: Jobs) -> None:
    job = a_job(jobs, attempt=2)
    with pytest.raises(JobError, match="attempt 2 was submitted meanwhile"):
        drive(job.job_id, jobs.work, 1, NullProgress())
    assert read_heartbeat(jobs.folder(job.job_id)) is None


def test_a_wish_that_comes_when_all_is_done_disturbs_nothing(
    jobs: Jobs, work_is: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last look once interrupted the journal's last words, and a finished job was lost."""
    job = a_job(jobs)
    work_is(lambda _: jobs.ask_to_end(job, "you@there") or {})
    drive(job.job_id, jobs.work, 1, NullProgress())
    assert beat(jobs, job.job_id)["state"] == "done"


def test_why_it_ends_does_not_wait_for_a_storage_that_is_away(
    jobs: Jobs, work_is: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(jobs)
    monkeypatch.setattr(module, "WHY_S", 0.05)
    away = threading.Event()

    def does(_: Progress) -> None:
        monkeypatch.setattr(Jobs, "control", lambda *_: away.wait(20) and None)
        raise KeyboardInterrupt

    work_is(does)
    with pytest.raises(KeyboardInterrupt):
        drive(job.job_id, jobs.work, 1, NullProgress())
    away.set()
    assert beat(jobs, job.job_id)["state"] == "stopped"


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_training_that_is_repeated_goes_on(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    """It once began anew, and threw its checkpoints away."""
    from asha_ray.farm.training import train

    done: list[TrainSpec] = []
    monkeypatch.setattr(train, "can_resume", lambda _: True)
    result = train.TrainResult("o", 1, 0, 1, {})
    monkeypatch.setattr(train, "train", lambda spec, _: done.append(spec) or result)
    job = a_job(jobs, {"kind": "train", "images": "i", "output": "o"}, attempt=attempt)
    drive(job.job_id, jobs.work, attempt, NullProgress())
    assert done[0].run.resume == (attempt == 2)


def test_it_stops_when_its_price_has_passed_the_limit(
    jobs: Jobs, work_is: Any, quick: None
) -> None:
    job = a_job(jobs, max_cost=0.01, prices=Prices(cpu_hour=3600.0 * 10, currency="EUR"))

    def does(progress: Progress) -> None:
        progress.tell(worker={"CPU": 1.0}, workers=2)
        wait()

    work_is(does)
    with pytest.raises(KeyboardInterrupt):
        drive(job.job_id, jobs.work, 1, NullProgress())
    last = beat(jobs, job.job_id)
    assert last["state"] == "stopped"
    assert "EUR, has passed --max-cost 0.01" in last["reason"]
    assert last["cost"] > 0.01
    assert last["cost"] == pytest.approx(last["cpu_s"] * 10, abs=0.01)


def test_a_signal_without_a_wish_is_told_as_one(jobs: Jobs, work_is: Any) -> None:
    job = a_job(jobs)

    def does(_: Progress) -> None:
        raise KeyboardInterrupt

    work_is(does)
    with pytest.raises(KeyboardInterrupt):
        drive(job.job_id, jobs.work, 1, NullProgress())
    assert beat(jobs, job.job_id)["reason"] == "it was told to end (a signal)"


def test_what_earlier_attempts_used_counts(jobs: Jobs, work_is: Any) -> None:
    job = a_job(jobs, prices=Prices(cpu_hour=1.0))
    work_is(lambda progress: progress.tell(worker={"CPU": 1}, workers=0) or {})
    with journal.Journal(jobs.folder(job.job_id), "job", attempt=1) as before:
        before.status(cpu_s=7200.0)
    drive(job.job_id, jobs.work, 1, NullProgress())
    assert beat(jobs, job.job_id)["cost"] == pytest.approx(2.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Status:
    """A journal that holds the last word on everything."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self.said: list[str] = []

    def status(self, **fields: Any) -> None:
        self.last |= fields

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_rate_is_that_of_the_last_minute(clock: Clock) -> None:
    """A render that waited an hour for a node would seem slow for days."""
    told = Status()
    progress = JobProgress(told, Meter(None, clock=clock), NullProgress(), clock)  # type: ignore[arg-type]
    progress.stage("rendering", 10_000, "frames")
    assert told.last["rate"] is None
    clock.now += 3600
    for _ in range(120):
        clock.now += 1
        progress.advance(10)
    assert told.last["rate"] == pytest.approx(10, rel=0.05)
    assert told.last["left_s"] == pytest.approx((10_000 - 1200) / 10, rel=0.05)
    progress.stage("stitching")
    assert (told.last["stage"], told.last["done"], told.last["left_s"]) == ("stitching", 0, None)


def test_the_log_says_now_and_then_how_far_it_is(clock: Clock) -> None:
    told = Status()
    progress = JobProgress(told, Meter(None, clock=clock), NullProgress(), clock)  # type: ignore[arg-type]
    progress.stage("rendering", 1000, "frames")
    for _ in range(41):
        clock.now += 1
        progress.advance(2)
    assert told.said == [
        "rendering 1000 frames",
        "rendering  40/1000 frames  2.0 frames/s",
        "rendering  80/1000 frames  2.0 frames/s",
    ]


def test_frames_that_are_lost_again_do_not_turn_time_back(clock: Clock) -> None:
    told = Status()
    progress = JobProgress(told, Meter(None, clock=clock), NullProgress(), clock)  # type: ignore[arg-type]
    progress.stage("rendering", 1000, "frames")
    clock.now += 5
    progress.advance(20)
    progress.advance(-20)
    assert told.last["done"] == 0
    assert told.last["left_s"] is None


def test_an_archive_of_which_something_is_parked_has_not_succeeded(
    jobs: Jobs, work_is: Any
) -> None:
    """Whoever waits for the job's end must hear that a person is needed."""
    spec = {"kind": "archive", "source": "/in", "output": "/out", "model": "/m"}
    job = a_job(jobs, spec)
    result = {"output": "/out", "done": 7, "parked": 2, "refused": 0, "is_whole": False}
    work_is(lambda _: result)
    with pytest.raises(JobError, match=r"2 shows are parked .* `asha-ray archive status /out`"):
        drive(job.job_id, jobs.work, 1, NullProgress())
    last = beat(jobs, job.job_id)
    assert (last["state"], last["kind"], last["result"]["done"]) == ("failed", "archive", 7)
