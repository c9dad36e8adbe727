"""A job, a work root, and a cluster that only remembers what it was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from asha_ray.config import Target
from asha_ray.errors import ClusterError
from asha_ray.farm.jobs import submit
from asha_ray.farm.on_ray import dashboard as on_ray
from asha_ray.farm.on_ray.dashboard import RAY_HERE, RayJob, Versions
from asha_ray.spec import Prices, RenderSpec
from asha_ray.storage.jobs import Job, Jobs


@dataclass
class FakeCluster:
    """Stands in for `Dashboard`, and for what answers it."""

    address: str = "http://head:8265"
    version: str = RAY_HERE
    node_list: list[dict[str, float]] = field(default_factory=lambda: [{}, {"CPU": 8, "GPU": 1}])
    grows: bool = False
    refuses: str = ""
    known: dict[str, RayJob] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def versions(self) -> Versions:
        return Versions(self.version, "3.11.7")

    def nodes(self) -> list[dict[str, float]]:
        return self.node_list

    def can_grow(self) -> bool:
        return self.grows

    def submit(self, submission_id: str, command: str, **given: Any) -> None:
        if self.refuses:
            raise ClusterError(self.refuses)
        self.submitted.append({"id": submission_id, "command": command, **given})

    def stop(self, submission_id: str) -> bool:
        if self.refuses:
            raise ClusterError(self.refuses)
        self.stopped.append(submission_id)
        return True

    def find(self, submission_id: str) -> RayJob | None:
        if self.refuses:
            raise ClusterError(self.refuses)
        return self.known.get(submission_id)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()

    def reached(address: str, _: str | None = None) -> FakeCluster:
        return replace(fake, address=address) if address != fake.address else fake

    monkeypatch.setattr(submit, "Dashboard", reached)
    monkeypatch.setattr(on_ray, "Dashboard", reached)
    return fake


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(
        address="http://head:8265",
        work=str(tmp_path / "work"),
        shared_disk=True,
        prices=Prices(cpu_hour=1.0),
    )


@pytest.fixture
def jobs(target: Target) -> Jobs:
    return Jobs(target.require_work())


def a_job(jobs: Jobs, spec: Mapping[str, Any] | None = None, **fields: Any) -> Job:
    """A job that was submitted just now."""
    from asha_ray.farm.jobs.submit import _now

    render = RenderSpec(audio="/a.wav", model="/m", output="/v.mp4")
    given = {
        "job_id": "20261125-215501-78ee",
        "spec": spec or render.model_dump(mode="json", exclude_defaults=True),
        "submitted": _now(),
        "submitted_by": "me@here",
        "address": "http://head:8265",
        **fields,
    }
    job = Job(**given)
    jobs.write(job)
    return job
