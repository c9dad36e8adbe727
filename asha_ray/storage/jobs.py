"""Jobs in a work root: what was asked for, how far it is, and the wish that it ends.

`jobs/<job_id>/job.json` is written by whoever submits or repeats a job, `control.json` by whoever
wants it to end, and the rest by its driver (see `journal`). So a job can be looked at, stopped and
repeated when its driver or the whole cluster is gone.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from asha_ray.errors import JobError, NotFoundError, SpecError, StorageError
from asha_ray.spec import Prices, build
from asha_ray.storage.base import join, safe_name, storage_of

VERSION = 1
MAX_BYTES = 1 << 20
NEAR = 3
"""Jobs that are named where it is not clear which is meant."""


@dataclass(frozen=True)
class Job:
    """One piece of work that was given to a cluster.

    Attributes:
        job_id: its name, which begins with the time.
        spec: what is to be done, as plain data; its inputs lie where a cluster sees them.
        submitted: when, in UTC.
        submitted_by: user and machine.
        address: of the cluster that it was given to last.
        attempt: how often it was given to one.
        max_cost: at what price so far it stops; None for never.
        prices: what an hour costs; None where nobody said.
        version: of the asha-ray that submitted it.
        work: the work root that its record is in.
    """

    job_id: str
    spec: Mapping[str, Any]
    submitted: str
    submitted_by: str
    address: str
    attempt: int = 1
    max_cost: float | None = None
    prices: Prices | None = None
    version: str = ""
    work: str = ""

    @property
    def kind(self) -> str:
        """`render`, `train` or `archive`."""
        return str(self.spec.get("kind", "render"))

    @property
    def output(self) -> str:
        """What it makes."""
        return str(self.spec.get("output", ""))

    @property
    def submission_id(self) -> str:
        """What Ray calls this attempt; it takes no name twice."""
        return self.job_id if self.attempt == 1 else f"{self.job_id}-{self.attempt}"


@dataclass(frozen=True)
class Control:
    """The wish that an attempt ends.

    Attributes:
        attempt: which.
        by: who wishes it.
        time: since when, in UTC.
    """

    attempt: int
    by: str
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def new_job_id() -> str:
    """A name for a job; later ones are greater."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


class Jobs:
    """The jobs of a work root.

    Args:
        work: its uri.
    """

    def __init__(self, work: str) -> None:
        self.work = work
        self._storage = storage_of(work)

    def folder(self, job_id: str) -> str:
        """All that is known of a job."""
        return join(self.work, "jobs", safe_name(job_id, "job"))

    def write(self, job: Job) -> None:
        """Store what was asked for."""
        prices = job.prices and job.prices.model_dump(mode="json")
        data = {"format": VERSION, **asdict(replace(job, prices=None)), "prices": prices}
        del data["work"]  # it may be moved
        self._put(join(self.folder(job.job_id), "job.json"), data)

    def forget(self, job_id: str) -> None:
        """Remove a job that was never given to a cluster."""
        self._storage.delete(join(self.folder(job_id), "job.json"))

    def read(self, job_id: str) -> Job:
        """A job.

        Raises:
            NotFoundError: if there is none of that name.
            JobError: if its record is damaged, or of a newer version.
        """
        uri = join(self.folder(job_id), "job.json")
        data = self._get(uri)
        try:
            if data["format"] != VERSION:
                raise JobError(
                    f"reading job {uri}: it is of format {str(data['format'])[:20]}, and this "
                    f"asha-ray knows {VERSION}; use the asha-ray that wrote it, or a newer one"
                )
            prices = data["prices"]
            return Job(
                job_id=job_id,
                spec=dict(data["spec"]),
                submitted=str(data["submitted"]),
                submitted_by=str(data["submitted_by"]),
                address=str(data["address"]),
                attempt=int(data["attempt"]),
                max_cost=None if data["max_cost"] is None else float(data["max_cost"]),
                prices=None if prices is None else build(Prices, prices),
                version=str(data["version"]),
                work=self.work,
            )
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise JobError(
                f"reading job {uri}: it is damaged ({error!r}); submit it anew"
            ) from error

    def ids(self) -> list[str]:
        """The names of all jobs, the latest first."""
        names = self._storage.folders(join(self.work, "jobs"))
        return sorted((name for name in names if _is_name(name)), reverse=True)

    def find(self, name: str) -> Job:
        """The job of that name, or the one whose name has this in it, or the `last`.

        Raises:
            NotFoundError: if there is none.
            JobError: if there are several.
        """
        if _is_name(name):
            try:
                return self.read(name)
            except NotFoundError:
                pass
        ids = self.ids()
        if name == "last":
            latest = next((job for job in self._read_all() if isinstance(job, Job)), None)
            meant = [latest.job_id] if latest else []
        else:
            meant = [job_id for job_id in ids if name and name in job_id]
        if not meant:
            raise NotFoundError(
                f"job {name[:80]}: there is none of that name in {self.work}; `asha-ray jobs list` "
                "lists them, --work names another work root"
            )
        if len(meant) > 1:
            some = ", ".join(meant[:NEAR])
            raise JobError(
                f"job {name}: {len(meant)} have that in their names ({some} …); give more"
            )
        return self.read(meant[0])

    def ask_to_end(self, job: Job, by: str) -> None:
        """Let a job's driver find the wish that it ends."""
        self._put(self._control_uri(job.job_id), asdict(Control(job.attempt, by)))

    def control(self, job: Job) -> Control | None:
        """The wish that this attempt ends; None where there is none."""
        try:
            data = self._get(self._control_uri(job.job_id))
            found = Control(int(data["attempt"]), str(data["by"])[:200], str(data["time"]))
        except NotFoundError:
            return None
        except (JobError, KeyError, TypeError, ValueError):
            return None  # no wish that anybody could have meant
        return found if found.attempt == job.attempt else None

    def read_all(self, limit: int) -> Iterator[Job | JobError]:
        """The latest jobs, and what is wrong with those that cannot be read."""
        return islice(self._read_all(), limit)

    def _read_all(self) -> Iterator[Job | JobError]:
        for job_id in self.ids():
            try:
                yield self.read(job_id)
            except JobError as error:
                yield error
            except NotFoundError:
                continue  # its submission failed, or its record expired

    def _control_uri(self, job_id: str) -> str:
        return join(self.folder(job_id), "control.json")

    def _put(self, uri: str, data: Mapping[str, Any]) -> None:
        self._storage.write(uri, (json.dumps(data, indent=1) + "\n").encode())

    def _get(self, uri: str) -> Mapping[str, Any]:
        size = self._storage.size(uri)
        if size is not None and size > MAX_BYTES:
            raise JobError(f"reading job {uri}: it has {size} bytes, too many; submit it anew")
        try:
            data = json.loads(self._storage.read(uri))
        except (ValueError, RecursionError) as error:
            raise JobError(f"reading job {uri}: it is damaged ({error}); submit it anew") from error
        if not isinstance(data, dict):
            raise JobError(f"reading job {uri}: it is damaged; submit it anew")
        return data


def _is_name(name: str) -> bool:
    try:
        safe_name(name, "job")
    except StorageError:
        return False
    return True
