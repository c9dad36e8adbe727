"""The driver of a job, on a cluster: does what its record says, and tells storage how it goes."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from asha_ray.errors import AshaError, JobError
from asha_ray.farm.jobs.ending import Ending
from asha_ray.farm.jobs.meter import Meter
from asha_ray.progress import Progress
from asha_ray.spec import ArchiveSpec, JobSpec, RenderSpec, build_job
from asha_ray.storage.jobs import Job, Jobs
from asha_ray.storage.journal import Journal, read_heartbeat

RATE_WINDOW_S = 60.0
RATE_STEP_S = 1.0
WHY_S = 5.0
"""What a driver that ends takes to find out whose wish that is."""
LOG_EVERY_S = 20.0
"""How often the log says how far a stage is."""


def drive(job_id: str, work: str, attempt: int, progress: Progress) -> dict[str, Any]:
    """Do a job, as whoever submitted it wished.

    Args:
        job_id: its name.
        work: the work root that holds its record.
        attempt: which this is; where a later one has been submitted, this one ends.
        progress: hears, beside storage, how far it is.

    Returns:
        What it made.

    Raises:
        AshaError: one of its kinds.
        KeyboardInterrupt: if it was stopped; the heartbeat says by what.
    """
    jobs = Jobs(work)
    job = jobs.read(job_id)
    if job.attempt != attempt:
        raise JobError(f"driving job {job_id}: attempt {job.attempt} was submitted meanwhile")
    folder = jobs.folder(job_id)
    meter = Meter(job.prices, read_heartbeat(folder))
    ending = Ending()
    watcher = _Watcher(jobs, job, meter, ending)
    facts = {"job_id": job_id, "kind": job.kind, "attempt": job.attempt, "output": job.output}
    with ending.heard(), Journal(folder, "job", watcher.look, **facts) as journal:
        watcher.journal = journal
        try:
            spec = build_job(job.spec, f"job {job_id}")
            result = _work(spec, job, JobProgress(journal, meter, progress))
        except KeyboardInterrupt:
            reason = watcher.why()
            journal.status(reason=reason)
            journal.say(f"stopped: {reason}; `asha-ray jobs retry {job_id}` goes on")
            raise
        except AshaError as error:
            journal.say(f"failed: {error}")
            raise
        except Exception as error:
            journal.say(f"failed: unexpected {error!r}; the driver's own log shows where")
            raise
        finally:
            watcher.account()
        journal.status(result=result)
        _require_whole(result, job)
        journal.say(f"done: {job.output}")
    return result


def _work(spec: JobSpec, job: Job, progress: Progress) -> dict[str, Any]:
    if isinstance(spec, RenderSpec):
        from asha_ray.farm.rendering.render import render

        return asdict(render(spec, progress))
    if isinstance(spec, ArchiveSpec):
        from asha_ray.farm.archive.archive import archive

        return archive(spec, progress, prices=job.prices).document()
    from asha_ray.farm.training.train import can_resume, train

    if job.attempt > 1:  # goes on where the one before has stopped
        run = spec.run.model_copy(update={"resume": can_resume(spec)})
        spec = spec.model_copy(update={"run": run})
    return asdict(train(spec, progress))


def _require_whole(result: Mapping[str, Any], job: Job) -> None:
    """Make sure that nothing is left for a person to look at.

    Raises:
        JobError: if something is; all else is done.
    """
    if not result.get("is_whole", True):
        raise JobError(
            f"working through {job.output}: {result['parked']} shows are parked and "
            f"{result['refused']} files are no shows; see `asha-ray archive status {job.output}`"
        )


class _Watcher:
    """Looks, every few seconds, whether the job shall end, and what it has cost."""

    journal: Journal

    def __init__(self, jobs: Jobs, job: Job, meter: Meter, ending: Ending) -> None:
        self._jobs, self._job, self._meter, self._ending = jobs, job, meter, ending
        self._reason = ""

    def look(self) -> None:
        """End the job where somebody wishes it, or it costs too much."""
        self.account()
        if self._reason:
            return
        self._reason = self._overspent() or self._wish() or self._outdated()
        if self._reason:
            # As Ctrl-C would: what is in hand is put away, and what is finished is kept.
            self._ending.wish()

    def account(self) -> None:
        """Tell what was used so far."""
        self._meter.count()
        used = {"gpu_s": round(self._meter.gpu_s, 3), "cpu_s": round(self._meter.cpu_s, 3)}
        cost = self._meter.cost
        self.journal.status(**used, **({} if cost is None else {"cost": round(cost, 6)}))

    def why(self) -> str:
        """Why the job was stopped."""
        if not self._reason:
            # Storage may be what is away, and a cluster kills who takes long to end.
            reader = threading.Thread(target=self._ask_why, name="asha-why", daemon=True)
            reader.start()
            reader.join(WHY_S)
        return self._reason or "it was told to end (a signal)"

    def _ask_why(self) -> None:
        with suppress(AshaError):
            self._reason = self._wish()

    def _wish(self) -> str:
        control = self._jobs.control(self._job)
        return f"cancelled by {control.by}" if control else ""

    def _outdated(self) -> str:
        attempt = self._jobs.read(self._job.job_id).attempt
        return f"attempt {attempt} has taken its place" if attempt > self._job.attempt else ""

    def _overspent(self) -> str:
        cost, limit, prices = self._meter.cost, self._job.max_cost, self._job.prices
        if cost is None or prices is None or limit is None or cost <= limit:
            return ""
        return (
            f"its price so far, {cost:.2f} {prices.currency}, has passed --max-cost {limit:g}; "
            "retry it with a greater one"
        )


class JobProgress:
    """A progress that goes into a job's heartbeat and log, and on to another.

    Args:
        journal: of the job.
        meter: hears of workers.
        inner: hears all the same.
        clock: seconds.
    """

    def __init__(
        self,
        journal: Journal,
        meter: Meter,
        inner: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._meter, self._inner, self._clock = journal, meter, inner, clock
        self._name, self._unit = "", ""
        self._total: int | None = None
        self._done = 0
        self._past: deque[tuple[float, int]] = deque()
        self._said_at = 0.0

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        """A stage begins."""
        self._name, self._total, self._unit, self._done = name, total, unit, 0
        self._said_at = self._clock()
        self._past = deque([(self._said_at, 0)])
        self._journal.status(stage=name, done=0, total=total, unit=unit, rate=None, left_s=None)
        self._journal.say(" ".join([name, *([f"{total} {unit}"] if total else [])]))
        self._inner.stage(name, total, unit)

    def advance(self, count: int = 1, detail: str = "") -> None:
        """So many more units are done."""
        self._done += count
        now = self._clock()
        if now - self._past[-1][0] >= RATE_STEP_S:
            self._past.append((now, self._done))
            while len(self._past) > 2 and now - self._past[0][0] > RATE_WINDOW_S:
                self._past.popleft()
        rate = self._rate(now)
        left_s = (self._total - self._done) / rate if self._total and rate else None
        self._journal.status(done=self._done, rate=rate, left_s=left_s)
        if now - self._said_at >= LOG_EVERY_S:
            self._said_at = now
            total = f"/{self._total}" if self._total else ""
            speed = f"  {rate:.1f} {self._unit}/s" if rate else ""
            self._journal.say(f"{self._name}  {self._done}{total} {self._unit}{speed}")
        self._inner.advance(count, detail)

    def note(self, message: str) -> None:
        """Something for people."""
        self._journal.say(message)
        self._inner.note(message)

    def tell(self, **facts: Any) -> None:
        """Something for programs."""
        self._meter.hear(facts)
        self._journal.status(**facts)
        self._inner.tell(**facts)

    def _rate(self, now: float) -> float | None:
        """Units per second, of late."""
        then, done = self._past[0]
        return (self._done - done) / (now - then) if now > then and self._done > done else None
