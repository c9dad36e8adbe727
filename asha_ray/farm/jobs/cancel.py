"""The wish that a job ends, told to its cluster and left where its driver finds it."""

import getpass
import platform
from dataclasses import dataclass

from asha_ray.config import Target
from asha_ray.errors import AshaError, ClusterError, JobError
from asha_ray.storage.jobs import Job, Jobs
from asha_ray.storage.journal import read_heartbeat


@dataclass(frozen=True)
class Cancelled:
    """A job that shall end.

    Attributes:
        job: which.
        warning: why its cluster could not be told; its driver finds the wish in storage then.
    """

    job: Job
    warning: str = ""


def cancel(name: str, target: Target) -> Cancelled:
    """Let a job end: its workers give back what they hold, and finished chunks are kept.

    Args:
        name: of the job, or a part of it.
        target: the work root, and the cluster's token.

    Raises:
        JobError: if there is no such job, or it has ended.
        StorageError: if its work root cannot be written.
    """
    jobs = Jobs(target.require_work())
    job = jobs.find(name)
    heartbeat = read_heartbeat(jobs.folder(job.job_id)) or {}
    state = heartbeat.get("state") if heartbeat.get("attempt") == job.attempt else None
    if state in ("done", "failed", "stopped"):
        raise JobError(f"cancelling job {job.job_id}: it has ended already, {state}")
    # First: whatever becomes of the message to the cluster, its driver finds this.
    jobs.ask_to_end(job, whoami())
    from asha_ray.farm.on_ray.dashboard import Dashboard  # Ray takes seconds to import

    try:
        require_its_cluster(job, target)
        Dashboard(target.address, target.token).stop(job.submission_id)
    except AshaError as error:
        return Cancelled(job, f"{error}; its driver, if it lives, stops by itself in seconds")
    return Cancelled(job)


def require_its_cluster(job: Job, target: Target) -> None:
    """Make sure that the cluster that is asked about a job is the one that it was given to.

    A job's record is anybody's who can write to the work root, and a token must not go wherever
    it says, so the address in it is never called by itself.

    Raises:
        ClusterError: if it is another one.
    """
    if job.address != target.address:
        raise ClusterError(
            f"asking about job {job.job_id}: it was given to the cluster at {job.address}, not to "
            f"{target.address}; give --address, if that is yours"
        )


def whoami() -> str:
    """User and machine, for others to know who it was."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have
        name = "somebody"
    return f"{name}@{platform.node()}"
