"""How far a job is, from storage: also when its driver, or the whole cluster, is gone."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from asha_ray.config import Target
from asha_ray.errors import AshaError, JobError
from asha_ray.farm.jobs.cancel import require_its_cluster
from asha_ray.storage.jobs import Job, Jobs
from asha_ray.storage.journal import age_s, is_alive, moment, read_heartbeat, read_log

State = Literal["pending", "running", "done", "failed", "stopped", "lost"]
PENDING_S = 120.0
"""What a cluster may take to start a driver before one wonders."""
FOLLOW_EVERY_S = 2.0


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Attributes:
        job_id: its name.
        kind: `render`, `train` or `archive`.
        output: what it makes.
        state: `pending` before its driver is heard of, `lost` when it is not any more.
        reason: why it failed, was stopped or waits; empty where there is nothing to say.
        stage: what it is at: listening, rendering, stitching …
        done: units of that stage that are done.
        total: of that stage; None where nobody knows.
        unit: of both.
        rate: units a second, of late.
        left_s: seconds that the stage still takes at that rate.
        frames: of the video.
        frames_done: of these, reused ones too.
        chunks: of the video.
        chunks_done: of these.
        reused_chunks: chunks that an earlier render had left.
        retries: chunks that failed or whose worker was lost, in this attempt.
        workers: that render now.
        gpu_hours: that all attempts' workers have held.
        cpu_hours: the same of workers without a GPU.
        cost: price so far; None where nobody said what an hour costs.
        currency: of it.
        max_cost: at what price it stops.
        attempt: how often it was given to a cluster.
        submitted: when it was given last.
        started: when its driver began.
        heard_s: seconds since its driver was heard of; None if never.
        address: of the cluster.
        render_id: of the render.
        result: what it made, once it is done.
    """

    job_id: str
    kind: str
    output: str
    state: State
    reason: str
    stage: str
    done: int | None
    total: int | None
    unit: str
    rate: float | None
    left_s: float | None
    frames: int | None
    frames_done: int | None
    chunks: int | None
    chunks_done: int | None
    reused_chunks: int | None
    retries: int
    workers: int | None
    gpu_hours: float
    cpu_hours: float
    cost: float | None
    currency: str
    max_cost: float | None
    attempt: int
    submitted: str
    started: str | None
    heard_s: float | None
    address: str
    render_id: str | None
    result: Mapping[str, Any] | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self.state in ("done", "failed", "stopped", "lost")


def job_status(name: str, target: Target) -> JobStatus:
    """How far a job is.

    Args:
        name: of the job, or a part of it.
        target: the work root, and the cluster, which is asked only about a job whose driver has
            never been heard of.

    Raises:
        AshaError: if there is no such job.
    """
    jobs = Jobs(target.require_work())
    return _status(jobs, jobs.find(name), target)


def list_jobs(target: Target, limit: int = 20) -> list[JobStatus | JobError]:
    """The latest jobs of a work root, and what is wrong with those that cannot be read."""
    jobs = Jobs(target.require_work())
    return [
        found if isinstance(found, JobError) else _status(jobs, found, None)
        for found in jobs.read_all(limit)
    ]


def follow(name: str, target: Target) -> Iterator[str | JobStatus]:
    """What a job says, line by line as it comes, and at last how it ended.

    Raises:
        AshaError: if there is no such job.
    """
    jobs = Jobs(target.require_work())
    job = jobs.find(name)
    after = told = ""
    while True:
        status = _status(jobs, job, target)
        if status.state == "pending" and status.reason not in ("", told):
            told = status.reason
            yield f"pending: {told}"
        for file, line in read_log(jobs.folder(job.job_id), after):
            after = file
            yield line
        if status.has_ended:
            yield status
            return
        time.sleep(FOLLOW_EVERY_S)


def job_log(name: str, target: Target) -> Iterator[str]:
    """What a job has said so far, line by line.

    Raises:
        AshaError: if there is no such job.
    """
    jobs = Jobs(target.require_work())
    for _, line in read_log(jobs.folder(jobs.find(name).job_id)):
        yield line


def _status(jobs: Jobs, job: Job, target: Target | None) -> JobStatus:
    heartbeat = read_heartbeat(jobs.folder(job.job_id))
    beat = heartbeat if heartbeat and heartbeat.get("attempt") == job.attempt else None
    if beat is None:
        state, reason = _before_its_driver(jobs, job, target)
    else:
        state, reason = _of_driver(beat)
        if state == "lost" and (control := jobs.control(job)):
            state, reason = "stopped", f"cancelled by {control.by}; its driver said no more"
    return status_of(job, state, reason, beat, heartbeat)


def status_of(
    job: Job,
    state: State,
    reason: str,
    beat: Mapping[str, Any] | None,
    before: Mapping[str, Any] | None = None,
) -> JobStatus:
    """A job's status.

    Args:
        job: what was asked for.
        state: of it.
        reason: for that.
        beat: what this attempt's driver said last, if it ever did.
        before: what any attempt's did: what was used counts on.
    """
    said = beat or {}
    used = beat or before or {}
    return JobStatus(
        job_id=job.job_id,
        kind=job.kind,
        output=job.output,
        state=state,
        reason=reason,
        stage=str(said.get("stage", "")),
        unit=str(said.get("unit", "")),
        rate=said.get("rate"),
        left_s=said.get("left_s") if state == "running" else None,
        retries=int(said.get("retries", 0)),
        workers=said.get("workers") if state == "running" else None,
        gpu_hours=round(float(used.get("gpu_s", 0)) / 3600, 6),
        cpu_hours=round(float(used.get("cpu_s", 0)) / 3600, 6),
        cost=used.get("cost"),
        currency=job.prices.currency if job.prices else "",
        max_cost=job.max_cost,
        attempt=job.attempt,
        submitted=job.submitted,
        started=said.get("started"),
        heard_s=None if beat is None else round(age_s(beat), 1),
        address=job.address,
        render_id=said.get("render_id"),
        result=said.get("result"),
        **{
            name: said.get(name)
            for name in (
                "done", "total", "frames", "frames_done", "chunks", "chunks_done", "reused_chunks",
            )
        },
    )  # fmt: skip


def _of_driver(beat: Mapping[str, Any]) -> tuple[State, str]:
    state = beat.get("state")
    if state == "running" and not is_alive(beat):
        return "lost", (
            f"its driver was last heard of {age_s(beat):.0f} s ago; `asha-ray jobs retry` goes on, "
            "on this cluster or another"
        )
    if state in ("running", "done", "failed", "stopped"):
        return state, str(beat.get("error") or beat.get("reason") or "")
    return "lost", "its heartbeat is damaged"


def _before_its_driver(jobs: Jobs, job: Job, target: Target | None) -> tuple[State, str]:
    """A job whose driver has not been heard of: it waits, or could not begin."""
    if control := jobs.control(job):
        return "stopped", f"cancelled by {control.by}"
    waited_s = _seconds_since(job.submitted)
    if target is not None:
        from asha_ray.farm.on_ray.dashboard import Dashboard

        try:
            require_its_cluster(job, target)
            known = Dashboard(target.address, target.token).find(job.submission_id)
        except AshaError as error:
            return "pending", f"its driver has not been heard of; {error}"
        if known is None:
            return "lost", f"the cluster at {job.address} knows nothing of it; retry it"
        if known.has_ended:
            return "failed", f"it ended before its driver began: {known.message}"
    if waited_s > PENDING_S:
        return "pending", f"its driver has not been heard of in {waited_s / 60:.0f} minutes"
    return "pending", ""


def _seconds_since(text: str) -> float:
    then = moment(text)
    return (datetime.now(UTC) - then).total_seconds() if then else float("inf")
