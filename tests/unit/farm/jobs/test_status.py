"""How far a job is, told from storage alone, whatever has become of its driver and its cluster."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asha_ray.config import Target
from asha_ray.errors import JobError
from asha_ray.farm.jobs import status as module
from asha_ray.farm.jobs.status import JobStatus, follow, job_status, list_jobs
from asha_ray.farm.on_ray.dashboard import RayJob
from asha_ray.spec import Prices
from asha_ray.storage.jobs import Job, Jobs
from asha_ray.storage.journal import Journal
from tests.unit.farm.jobs.conftest import FakeCluster, a_job


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def heard(jobs: Jobs, job: Job, **fields: Any) -> None:
    folder = Path(jobs.folder(job.job_id))
    beat = {"attempt": job.attempt, "state": "running", "time": ago(1), **fields}
    (folder / "heartbeat.json").write_text(json.dumps(beat))


def test_a_running_job_says_how_far_it_is(jobs: Jobs, target: Target) -> None:
    job = a_job(jobs, prices=Prices(currency="EUR"), max_cost=5.0)
    heard(
        jobs, job, stage="rendering", done=300, total=900, unit="frames", rate=30.0, left_s=20.0,
        frames=1800, frames_done=1200, chunks=30, chunks_done=20, reused_chunks=15, retries=2,
        workers=4, gpu_s=1800.0, cost=0.6, render_id="abc",
    )  # fmt: skip
    found = job_status("last", target)
    assert (found.state, found.stage, found.done, found.total) == ("running", "rendering", 300, 900)
    assert (found.frames_done, found.frames, found.reused_chunks, found.retries) == (
        1200,
        1800,
        15,
        2,
    )
    assert (found.rate, found.left_s, found.workers) == (30.0, 20.0, 4)
    assert (found.gpu_hours, found.cost, found.currency, found.max_cost) == (0.5, 0.6, "EUR", 5.0)
    assert found.heard_s == pytest.approx(1, abs=5)
    assert not found.has_ended


def test_a_driver_that_is_not_heard_of_any_more_is_lost(jobs: Jobs, target: Target) -> None:
    """Whatever a cluster says: a dead head's job reads RUNNING for ever."""
    job = a_job(jobs)
    heard(jobs, job, time=ago(90), left_s=3.0)
    found = job_status(job.job_id, target)
    assert found.state == "lost"
    assert "last heard of 90 s ago; `asha-ray jobs retry` goes on" in found.reason
    assert found.left_s is None
    assert found.has_ended


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({"state": "done", "result": {"frames": 3}}, "done", ""),
        ({"state": "failed", "error": "rendering: x"}, "failed", "rendering: x"),
        ({"state": "stopped", "reason": "cancelled by me"}, "stopped", "cancelled by me"),
        ({"state": "dancing"}, "lost", "its heartbeat is damaged"),
    ],
)
def test_how_it_ended(
    jobs: Jobs, target: Target, fields: dict[str, Any], state: str, reason: str
) -> None:
    job = a_job(jobs)
    heard(jobs, job, time=ago(10_000), **fields)
    found = job_status(job.job_id, target)
    assert (found.state, found.reason) == (state, reason)
    assert found.result == fields.get("result")


def test_one_that_was_cancelled_and_is_not_heard_of_is_stopped(jobs: Jobs, target: Target) -> None:
    job = a_job(jobs)
    heard(jobs, job, time=ago(90))
    jobs.ask_to_end(job, "me@here")
    found = job_status(job.job_id, target)
    assert (found.state, found.reason) == (
        "stopped", "cancelled by me@here; its driver said no more",
    )  # fmt: skip


class TestBeforeItsDriverIsHeardOf:
    def test_it_waits(self, jobs: Jobs, target: Target, cluster: FakeCluster) -> None:
        job = a_job(jobs)
        cluster.known[job.submission_id] = RayJob("PENDING", "")
        assert job_status(job.job_id, target).state == "pending"

    def test_it_waits_long(self, jobs: Jobs, target: Target, cluster: FakeCluster) -> None:
        job = a_job(jobs, submitted=ago(500))
        cluster.known[job.submission_id] = RayJob("PENDING", "")
        found = job_status(job.job_id, target)
        assert (found.state, found.reason) == (
            "pending", "its driver has not been heard of in 8 minutes",
        )  # fmt: skip

    def test_its_driver_could_not_begin(
        self, jobs: Jobs, target: Target, cluster: FakeCluster
    ) -> None:
        """Such as a cluster without torch: nothing of that is ever in storage."""
        job = a_job(jobs)
        cluster.known[job.submission_id] = RayJob("FAILED", "No module named 'torch'")
        found = job_status(job.job_id, target)
        assert found.state == "failed"
        assert "it ended before its driver began: No module named 'torch'" in found.reason

    def test_its_cluster_is_another_one(
        self, jobs: Jobs, target: Target, cluster: FakeCluster
    ) -> None:
        job = a_job(jobs)
        assert job_status(job.job_id, target).state == "lost"

    def test_its_record_names_a_cluster_that_is_not_the_persons(
        self, jobs: Jobs, target: Target, cluster: FakeCluster
    ) -> None:
        job = a_job(jobs, address="http://somebody-else:8265")
        cluster.known[job.submission_id] = RayJob("RUNNING", "")
        found = job_status(job.job_id, target)
        assert found.state == "pending"
        assert "give --address, if that is yours" in found.reason

    def test_its_cluster_does_not_answer(
        self, jobs: Jobs, target: Target, cluster: FakeCluster
    ) -> None:
        job = a_job(jobs)
        cluster.refuses = "nobody answers"
        found = job_status(job.job_id, target)
        assert found.state == "pending"
        assert "nobody answers" in found.reason

    def test_it_was_cancelled(self, jobs: Jobs, target: Target) -> None:
        job = a_job(jobs)
        jobs.ask_to_end(job, "me@here")
        assert job_status(job.job_id, target).state == "stopped"

    def test_what_an_earlier_attempt_said_is_not_this_ones(
        self, jobs: Jobs, target: Target, cluster: FakeCluster
    ) -> None:
        job = a_job(jobs, attempt=2)
        heard(jobs, job, attempt=1, state="failed", error="x", gpu_s=3600.0)
        cluster.known[job.submission_id] = RayJob("PENDING", "")
        found = job_status(job.job_id, target)
        assert (found.state, found.reason) == ("pending", "")
        assert found.gpu_hours == 1.0, "what was used is used"


def test_a_list_asks_no_cluster(jobs: Jobs, target: Target, cluster: FakeCluster) -> None:
    """Twenty jobs of clusters that are gone would take minutes."""
    cluster.refuses = "nobody answers"
    a_job(jobs, job_id="1")
    a_job(jobs, job_id="2")
    (Path(jobs.folder("1")) / "job.json").write_text("{")
    latest, damaged = list_jobs(target)
    assert isinstance(latest, JobStatus)
    assert latest.state == "pending"
    assert isinstance(damaged, JobError)


def test_following_shows_every_line_once_and_the_end(
    jobs: Jobs, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(jobs)
    pauses: list[float] = []
    lines = iter(["listening", "rendering", "done"])

    def goes_on(seconds: float) -> None:
        pauses.append(seconds)
        with Journal(jobs.folder(job.job_id), "job", attempt=1) as told:
            told.say(next(lines))
        if len(pauses) < 3:
            heard(jobs, job)

    heard(jobs, job)
    monkeypatch.setattr(module.time, "sleep", goes_on)
    *said, ended = follow(job.job_id, target)
    assert [str(line).split("  ")[1] for line in said] == ["listening", "rendering", "done"]
    assert isinstance(ended, JobStatus)
    assert ended.state == "done"
