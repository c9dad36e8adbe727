"""Jobs in a work root: found again as they were asked for, by whoever looks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asha_ray.errors import JobError, NotFoundError, StorageError
from asha_ray.spec import Prices
from asha_ray.storage.jobs import Job, Jobs, new_job_id

JOB = Job(
    job_id="20261125-215501-78ee",
    spec={"kind": "render", "audio": "s3://b/a", "model": "s3://b/m", "output": "s3://b/v.mp4"},
    submitted="2026-11-25T21:55:01+00:00",
    submitted_by="me@here",
    address="http://head:8265",
    max_cost=3.5,
    prices=Prices(gpu_hour=1.2),
    version="0.1.0",
)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(str(tmp_path / "work"))


def add(jobs: Jobs, *job_ids: str) -> None:
    for job_id in job_ids:
        jobs.write(replace(JOB, job_id=job_id))


def test_a_job_is_read_as_it_was_written(jobs: Jobs) -> None:
    jobs.write(JOB)
    assert jobs.read(JOB.job_id) == replace(JOB, work=jobs.work)
    free = replace(JOB, job_id="x", max_cost=None, prices=None, attempt=3)
    jobs.write(free)
    assert jobs.read("x") == replace(free, work=jobs.work)


def test_the_records_fields_are_frozen(jobs: Jobs) -> None:
    """Others read this file."""
    jobs.write(JOB)
    data = json.loads((Path(jobs.work) / "jobs" / JOB.job_id / "job.json").read_text())
    assert sorted(data) == [
        "address", "attempt", "format", "job_id", "max_cost", "prices", "spec", "submitted",
        "submitted_by", "version",
    ]  # fmt: skip


def test_every_attempt_has_another_name_on_a_cluster() -> None:
    """Ray answers a name that it knows already with an error."""
    names = {replace(JOB, attempt=attempt).submission_id for attempt in (1, 2, 3)}
    assert len(names) == 3
    assert JOB.submission_id == JOB.job_id


def test_new_names_are_in_the_order_of_time_and_no_two_are_the_same() -> None:
    names = [new_job_id() for _ in range(50)]
    assert len(set(names)) == 50
    assert [name[:15] for name in names] == sorted(name[:15] for name in names)


def test_a_part_of_a_name_is_enough_where_it_is_clear(jobs: Jobs) -> None:
    add(jobs, "20261125-1000-aaaa", "20261125-1100-abcd", "20261126-0900-ffff")
    assert jobs.find("abcd").job_id == "20261125-1100-abcd"
    assert jobs.find("20261126-0900-ffff").job_id == "20261126-0900-ffff"
    assert jobs.find("last").job_id == "20261126-0900-ffff"
    with pytest.raises(JobError, match="2 have that in their names"):
        jobs.find("20261125")
    for name in ("nope", "", "../../etc"):
        with pytest.raises(NotFoundError, match="there is none of that name"):
            jobs.find(name)


def test_the_last_is_one_that_was_submitted(jobs: Jobs) -> None:
    """A submission that was refused leaves an empty folder."""
    add(jobs, "1", "2")
    jobs.forget("2")
    assert jobs.find("last").job_id == "1"


def test_a_name_that_is_another_ones_part_is_that_name(jobs: Jobs) -> None:
    add(jobs, "a1", "a1-2")
    assert jobs.find("a1").job_id == "a1"


def test_names_cannot_leave_the_work_root(jobs: Jobs) -> None:
    with pytest.raises(StorageError):
        jobs.folder("../other")


def test_the_latest_come_first_and_damaged_ones_are_told(jobs: Jobs) -> None:
    add(jobs, "1", "2", "3", "4")
    (Path(jobs.work) / "jobs" / "3" / "job.json").write_text("{")
    (Path(jobs.work) / "jobs" / "2" / "job.json").unlink()
    found = list(jobs.read_all(3))
    assert isinstance(found[0], Job)
    assert found[0].job_id == "4"
    assert isinstance(found[1], JobError)
    assert isinstance(found[2], Job)
    assert found[2].job_id == "1", "one whose submission failed is none"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "damaged"),
        ('{"format": 2}', "of format 2, and this asha-ray knows 1"),
        ('{"format": 1, "spec": 3}', "damaged"),
        ("[" * 100_000, "damaged"),
        ("x" * ((1 << 20) + 1), "too many"),
    ],
    ids=["list", "newer", "fields", "deep", "large"],
)
def test_a_damaged_record_is_an_error_of_its_own(jobs: Jobs, text: str, reason: str) -> None:
    add(jobs, "1")
    (Path(jobs.work) / "jobs" / "1" / "job.json").write_text(text)
    with pytest.raises(JobError, match=reason):
        jobs.read("1")


def test_a_wish_to_end_is_for_one_attempt(jobs: Jobs) -> None:
    """Else whoever repeats a cancelled job would see it end at once."""
    assert jobs.control(JOB) is None
    jobs.ask_to_end(JOB, "me@here")
    control = jobs.control(JOB)
    assert control is not None
    assert control.by == "me@here"
    assert jobs.control(replace(JOB, attempt=2)) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attempt": "x", "by": 1, "time": 2}'])
def test_a_torn_wish_is_none(jobs: Jobs, text: str) -> None:
    folder = Path(jobs.folder(JOB.job_id))
    folder.mkdir(parents=True)
    (folder / "control.json").write_text(text)
    assert jobs.control(JOB) is None
