"""Jobs sent to a cluster, and sent again."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asha_ray
from asha_ray.config import Target
from asha_ray.errors import (
    ClusterError,
    JobError,
    NotFoundError,
    SpecError,
    StorageError,
)
from asha_ray.farm.jobs.cancel import whoami
from asha_ray.farm.jobs.checks import check_inputs, check_places, check_room
from asha_ray.farm.jobs.inputs import Inputs
from asha_ray.farm.jobs.shipping import send_command
from asha_ray.farm.on_ray.dashboard import RAY_HERE, Dashboard
from asha_ray.farm.places import absolute_paths
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import JobSpec, Prices, TrainSpec, build_job
from asha_ray.storage.base import is_s3
from asha_ray.storage.jobs import Job, Jobs, new_job_id
from asha_ray.storage.journal import age_s, is_alive, read_heartbeat


def submit(
    spec: JobSpec,
    target: Target,
    *,
    max_cost: float | None = None,
    progress: Progress | None = None,
) -> Job:
    """Give a job to a cluster.

    Args:
        spec: what is to be done.
        target: where.
        max_cost: stop it once its price so far passes this.
        progress: hears of what is sent.

    Raises:
        AshaError: one of its kinds; nothing was submitted then.
    """
    progress = progress or NullProgress()
    spec = absolute_paths(spec)
    work = target.require_work()
    _require_prices(max_cost, target.prices)
    cluster = Dashboard(target.address, target.token)
    _tell_versions(cluster, progress)
    check_places(spec, work, shared_disk=target.shared_disk)
    check_inputs(spec)
    check_room(spec, cluster.nodes(), can_grow=cluster.can_grow())
    if is_s3(work):
        spec = Inputs(work, progress).place(spec)
    if not isinstance(spec, TrainSpec):
        run = spec.run.model_copy(update={"work": spec.run.work or work, "executor": "ray"})
        spec = spec.model_copy(update={"run": run})
    job = Job(
        job_id=new_job_id(),
        spec=spec.model_dump(mode="json", exclude_defaults=True)
        | {"version": spec.version, "kind": spec.kind},
        submitted=_now(),
        submitted_by=whoami(),
        address=target.address,
        max_cost=max_cost,
        prices=target.prices,
        version=asha_ray.__version__,
        work=work,
    )
    _send(job, Jobs(work), cluster, target, progress)
    return job


def retry(
    name: str,
    target: Target,
    *,
    max_cost: float | None = None,
    progress: Progress | None = None,
) -> Job:
    """Give a job that has ended to a cluster again; it goes on from what is finished.

    Args:
        name: of the job, or a part of it.
        target: the cluster, which may be another one, and the work root.
        max_cost: another limit than before.
        progress: hears of what is sent.

    Raises:
        JobError: if it is at work, or done.
        AshaError: another of its kinds; nothing was submitted then.
    """
    progress = progress or NullProgress()
    jobs = Jobs(target.require_work())
    job = jobs.find(name)
    heartbeat = read_heartbeat(jobs.folder(job.job_id))
    if heartbeat is not None and is_alive(heartbeat):
        raise JobError(
            f"repeating job {job.job_id}: its driver was heard of {age_s(heartbeat):.0f} s ago, so "
            "it is at work; cancel it first, or wait a minute where its cluster is gone"
        )
    if heartbeat is not None and heartbeat.get("state") == "done":
        raise JobError(
            f"repeating job {job.job_id}: it is done, see {job.output}; submit its spec for another"
        )
    _require_prices(max_cost, target.prices or job.prices)
    cluster = Dashboard(target.address, target.token)
    _require_ended(job, heartbeat, cluster)
    _tell_versions(cluster, progress)
    spec = build_job(job.spec, f"job {job.job_id}")
    check_inputs(spec)
    check_room(spec, cluster.nodes(), can_grow=cluster.can_grow())
    again = replace(
        job,
        attempt=job.attempt + 1,
        address=target.address,
        submitted=_now(),
        submitted_by=whoami(),
        max_cost=job.max_cost if max_cost is None else max_cost,
        prices=target.prices or job.prices,
    )
    _send(again, jobs, cluster, target, progress, before=job)
    return again


def _tell_versions(cluster: Dashboard, progress: Progress) -> None:
    there = cluster.versions().ray
    if there != RAY_HERE:
        progress.note(f"the cluster runs Ray {there}, this machine {RAY_HERE}")


def _require_prices(max_cost: float | None, prices: Prices | None) -> None:
    if max_cost is not None and prices is None:
        raise SpecError(
            "--max-cost: nobody said what an hour costs; give [prices] in the configuration file, "
            'like gpu_hour = 1.2 and currency = "USD"'
        )


def _require_ended(job: Job, heartbeat: Mapping[str, Any] | None, cluster: Dashboard) -> None:
    """Make sure that an attempt that is not heard of is not about to begin, nor goes on."""
    if job.address != cluster.address:
        return
    known = cluster.find(job.submission_id)
    if known is None or known.has_ended:
        return
    was_heard = heartbeat is not None and heartbeat.get("attempt") == job.attempt
    if not was_heard:
        raise JobError(f"repeating job {job.job_id}: it has not begun yet; cancel it first")
    cluster.stop(job.submission_id)  # it hangs, or cannot reach its storage


def _send(
    job: Job,
    jobs: Jobs,
    cluster: Dashboard,
    target: Target,
    progress: Progress,
    before: Job | None = None,
) -> None:
    """Write a job's record, then submit it; where that fails all is as it was."""
    jobs.write(job)
    progress.stage("submitting")
    try:
        send_command(
            cluster,
            job.submission_id,
            ["drive", job.job_id, "--work", jobs.work, "--attempt", str(job.attempt)],
            metadata={
                "asha_job": job.job_id,
                "attempt": str(job.attempt),
                "kind": job.kind,
                "work": jobs.work,
                "output": job.output,
            },
            variables={"ASHA_JOB": job.job_id},
            image=target.image,
        )
    except ClusterError:
        with suppress(ClusterError):
            if cluster.find(job.submission_id) is not None:
                return  # it was taken, and only the answer was lost; or somebody else was faster
        with suppress(StorageError, NotFoundError):
            if before is None:
                jobs.forget(job.job_id)
            else:
                jobs.write(before)
        raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
