"""What goes to a cluster, what does not, and what is refused before anything goes."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asha_ray
from asha_ray.config import Target
from asha_ray.errors import (
    AshaError,
    ClusterError,
    JobError,
    ModelError,
    NotFoundError,
    ResourceError,
    SpecError,
    UnwritableError,
)
from asha_ray.farm.jobs.cancel import cancel
from asha_ray.farm.jobs.submit import retry, submit
from asha_ray.farm.on_ray.dashboard import RayJob
from asha_ray.progress import NullProgress
from asha_ray.spec import ArchiveSpec, RenderSpec, TrainSpec, build_job
from asha_ray.spec import build as build_spec
from asha_ray.storage.jobs import Jobs
from asha_ray.storage.journal import now
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.model_dir import write_model
from tests import media
from tests.unit.farm.jobs.conftest import FakeCluster, a_job


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    vae = build(architecture_of("seed", (16, 16), 3, (4, 8), (8, 4)), 1)
    write_model(folder, vae, np.zeros((2, 3), np.float32), {"epochs": 0})
    return folder


@pytest.fixture
def spec(tmp_path: Path, model: Path) -> RenderSpec:
    sound = media.write_sound(tmp_path / "a track.wav", media.music(0.5, 8000), 8000)
    return RenderSpec(audio=str(sound), model=str(model), output=str(tmp_path / "out" / "v.mp4"))


class Notes(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def records(jobs: Jobs) -> list[str]:
    return [job_id for job_id in jobs.ids() if (Path(jobs.folder(job_id)) / "job.json").exists()]


def test_a_cluster_is_given_a_driver_that_reads_the_jobs_record(
    spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
) -> None:
    job = submit(spec, target, max_cost=4.0)
    (given,) = cluster.submitted
    assert given["id"] == job.job_id
    assert shlex.split(given["command"]) == [
        "python", "-P", "-m", "asha_ray", "drive", job.job_id, "--work", jobs.work,
        "--attempt", "1",
    ]  # fmt: skip
    assert given["package"] == Path(asha_ray.__file__).parent
    assert given["metadata"]["output"] == spec.output
    stored = jobs.read(job.job_id)
    assert stored == job
    assert stored.max_cost == 4.0
    run = RenderSpec.model_validate(stored.spec).run
    assert (run.work, run.executor) == (jobs.work, "ray")


def test_no_secret_goes_anywhere(
    spec: RenderSpec,
    target: Target,
    cluster: FakeCluster,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The environment of a cluster's job is shown on its dashboard."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "hunter22")
    job = submit(spec, replace(target, token="hunter22"))
    stored = (Path(jobs.folder(job.job_id)) / "job.json").read_text()
    assert "hunter22" not in stored + json.dumps(cluster.submitted, default=str)
    assert set(cluster.submitted[0]["variables"]) == {
        "ASHA_JOB", "PYTHONUNBUFFERED", "RAY_JOB_STOP_WAIT_TIME_S",
    }  # fmt: skip


def test_a_cluster_that_has_asha_ray_is_sent_none(
    spec: RenderSpec, target: Target, cluster: FakeCluster
) -> None:
    submit(spec, replace(target, image=True))
    assert cluster.submitted[0]["package"] is None


def test_a_second_job_finds_the_folders_that_the_first_has_made(
    spec: RenderSpec, target: Target, cluster: FakeCluster
) -> None:
    submit(spec, target)
    submit(spec, target)
    assert len(cluster.submitted) == 2


def test_another_version_of_ray_is_told(
    spec: RenderSpec, target: Target, cluster: FakeCluster
) -> None:
    cluster.version = "2.99.1"
    heard = Notes()
    submit(spec, target, progress=heard)
    assert any("the cluster runs Ray 2.99.1, this machine" in note for note in heard.notes)


def test_a_submission_that_is_refused_leaves_no_job(
    spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
) -> None:
    cluster.refuses = "submitting: it has no room"
    with pytest.raises(ClusterError, match="no room"):
        submit(spec, target)
    assert records(jobs) == []


def without_work(spec: RenderSpec, target: Target) -> tuple[RenderSpec, Target]:
    return spec, replace(target, work=None)


def without_prices(spec: RenderSpec, target: Target) -> tuple[RenderSpec, Target]:
    return spec, replace(target, prices=None)


def on_own_disk(spec: RenderSpec, target: Target) -> tuple[RenderSpec, Target]:
    return spec, replace(target, shared_disk=False)


def changed(**fields: Any) -> Any:
    def change(spec: RenderSpec, target: Target) -> tuple[RenderSpec, Target]:
        folder = Path(spec.output).parents[1]
        made = {name: text.format(folder=folder) for name, text in fields.items()}
        return spec.model_copy(update=made), target

    return change


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        pytest.param(without_work, SpecError, "no work root is known", id="no-work"),
        pytest.param(without_prices, SpecError, "nobody said what an hour costs", id="no-prices"),
        pytest.param(
            on_own_disk, SpecError, "output: .* a cluster cannot write there", id="own-disk"
        ),
        pytest.param(
            changed(audio="{folder}/none.wav"),
            NotFoundError,
            "audio: .*none.wav: there is no such file",
            id="no-audio",
        ),
        pytest.param(
            changed(audio="{folder}"), NotFoundError, "audio: .*it is a folder", id="audio-folder"
        ),
        pytest.param(
            changed(model="{folder}/none"), ModelError, "there is no such folder", id="no-model"
        ),
        pytest.param(
            changed(output="{folder}/a track.wav/v.mp4"), UnwritableError, "writing", id="output"
        ),
        pytest.param(
            changed(output="ftp://host/v.mp4"), SpecError, "ftp:// is not supported", id="scheme"
        ),
        pytest.param(
            changed(audio="s3://key:secret22@bucket/a.wav"), SpecError, "credentials", id="secret"
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    spec: RenderSpec,
    target: Target,
    cluster: FakeCluster,
    jobs: Jobs,
    change: Any,
    error: type[AshaError],
    reason: str,
) -> None:
    spec, target = change(spec, target)
    with pytest.raises(error, match=reason) as caught:
        submit(spec, target, max_cost=1.0)
    assert "secret22" not in str(caught.value)
    assert cluster.submitted == []
    assert records(jobs) == []


class TestRoom:
    def test_a_cluster_without_a_cpu_is_refused(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster
    ) -> None:
        cluster.node_list = [{"memory": 1e9}]
        with pytest.raises(ResourceError, match="none of its 1 nodes has a CPU to work on"):
            submit(spec, target)

    @pytest.mark.parametrize(("gpus", "fits"), [(0.5, True), (1, True), (2, False)])
    def test_a_worker_must_fit_a_node(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, gpus: float, fits: bool
    ) -> None:
        cluster.node_list = [{"CPU": 64}, {"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1}]
        spec = spec.model_copy(
            update={"run": spec.run.model_copy(update={"gpus_per_worker": gpus})}
        )
        if fits:
            submit(spec, target)
        else:
            with pytest.raises(
                ResourceError, match="this cluster has no node that can hold"
            ) as told:
                submit(spec, target)
            assert "takes 1 CPU, 2 GPU; its largest has 8 CPU, 1 GPU" in str(told.value)

    def test_unless_it_grows(self, spec: RenderSpec, target: Target, cluster: FakeCluster) -> None:
        cluster.node_list, cluster.grows = [{}], True
        submit(spec, target)
        assert len(cluster.submitted) == 1


class TestTraining:
    def test_it_is_submitted_too(
        self, tmp_path: Path, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        images = tmp_path / "images"
        images.mkdir()
        (images / "1.png").write_bytes(b"x")
        (tmp_path / "model").mkdir()  # of an earlier training
        spec = TrainSpec(images=str(images), output=str(tmp_path / "model"), epochs=3)
        job = submit(spec, target)
        assert (job.kind, job.output) == ("train", str(tmp_path / "model"))
        assert TrainSpec.model_validate(job.spec).epochs == 3

    def test_a_folder_without_images_is_refused(
        self, tmp_path: Path, target: Target, cluster: FakeCluster
    ) -> None:
        with pytest.raises(AshaError, match="there are no images in it"):
            submit(TrainSpec(images=str(tmp_path), output=str(tmp_path / "m")), target)


def beat(jobs: Jobs, job_id: str, **fields: Any) -> None:
    path = Path(jobs.folder(job_id)) / "heartbeat.json"
    path.write_text(json.dumps({"attempt": 1, "time": now(), **fields}))


class TestRetry:
    def test_it_is_the_same_job_under_another_name(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = submit(spec, target)
        beat(jobs, job.job_id, state="failed")
        again = retry("last", target, max_cost=9.0)
        assert (again.job_id, again.attempt, again.max_cost) == (job.job_id, 2, 9.0)
        assert again.spec == job.spec
        first, second = cluster.submitted
        assert (first["id"], second["id"]) == (job.job_id, f"{job.job_id}-2")
        assert jobs.read(job.job_id).attempt == 2

    def test_its_record_may_lie_apart_from_its_segments(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs, tmp_path: Path
    ) -> None:
        """A person's jobs are in one place, whatever work root a spec names."""
        run = spec.run.model_copy(update={"work": str(tmp_path / "other")})
        job = submit(spec.model_copy(update={"run": run}), target)
        assert records(jobs) == [job.job_id]
        assert job.spec["run"]["work"] == str(tmp_path / "other")

    def test_it_may_go_to_another_cluster(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = submit(spec, target)
        assert retry(job.job_id, replace(target, address="http://new:1")).address == "http://new:1"
        assert jobs.read(job.job_id).address == "http://new:1"

    @pytest.mark.parametrize(
        ("state", "reason"), [("running", "it is at work"), ("done", "it is done, see")]
    )
    def test_not_while_it_works_nor_when_it_is_done(
        self,
        spec: RenderSpec,
        target: Target,
        cluster: FakeCluster,
        jobs: Jobs,
        state: str,
        reason: str,
    ) -> None:
        job = submit(spec, target)
        beat(jobs, job.job_id, state=state)
        with pytest.raises(JobError, match=reason):
            retry(job.job_id, target)

    def test_not_while_it_waits_for_its_turn(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster
    ) -> None:
        job = submit(spec, target)
        cluster.known[job.job_id] = RayJob("PENDING", "")
        with pytest.raises(JobError, match="it has not begun yet"):
            retry(job.job_id, target)

    def test_not_while_its_driver_starts(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster
    ) -> None:
        """Python and torch take seconds to import, and a heartbeat comes after that."""
        job = submit(spec, target)
        cluster.known[job.job_id] = RayJob("RUNNING", "")
        with pytest.raises(JobError, match="it has not begun yet"):
            retry(job.job_id, target)

    def test_one_that_hangs_is_ended_first(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = submit(spec, target)
        beat(jobs, job.job_id, state="running", time="2026-01-01T00:00:00+00:00")
        cluster.known[job.job_id] = RayJob("RUNNING", "")
        retry(job.job_id, target)
        assert cluster.stopped == [job.job_id]

    def test_a_limit_needs_prices_as_a_submission_does(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = submit(spec, replace(target, prices=None))
        beat(jobs, job.job_id, state="failed")
        with pytest.raises(SpecError, match="nobody said what an hour costs"):
            retry(job.job_id, replace(target, prices=None), max_cost=1.0)

    def test_one_whose_answer_was_lost_was_taken(
        self,
        spec: RenderSpec,
        target: Target,
        cluster: FakeCluster,
        jobs: Jobs,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        job = submit(spec, target)
        beat(jobs, job.job_id, state="failed")

        def taken(submission_id: str, *_: Any, **__: Any) -> None:
            cluster.known[submission_id] = RayJob("PENDING", "")
            raise ClusterError("submitting: nobody answers")

        monkeypatch.setattr(cluster, "submit", taken)
        assert retry(job.job_id, target).attempt == 2
        assert jobs.read(job.job_id).attempt == 2

    def test_one_that_is_refused_is_as_it_was(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = submit(spec, target)
        beat(jobs, job.job_id, state="failed")
        cluster.refuses = "submitting: no"
        with pytest.raises(ClusterError):
            retry(job.job_id, target)
        assert jobs.read(job.job_id) == job

    def test_inputs_that_are_gone_are_told(
        self, spec: RenderSpec, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        """Work roots in buckets forget after a month."""
        job = submit(spec, target)
        beat(jobs, job.job_id, state="failed")
        Path(spec.audio).unlink()
        with pytest.raises(NotFoundError, match="audio"):
            retry(job.job_id, target)


class TestCancel:
    def test_storage_and_the_cluster_are_told(
        self, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = a_job(jobs)
        assert cancel("last", target).warning == ""
        assert cluster.stopped == [job.submission_id]
        assert jobs.control(job) is not None

    def test_a_cluster_that_does_not_answer_is_no_hindrance(
        self, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        job = a_job(jobs)
        cluster.refuses = "nobody answers"
        assert "nobody answers" in cancel(job.job_id, target).warning
        assert jobs.control(job) is not None

    def test_the_token_goes_to_the_cluster_of_the_person_and_not_of_the_record(
        self, target: Target, cluster: FakeCluster, jobs: Jobs
    ) -> None:
        """Whoever may write to the bucket could have it sent to himself."""
        job = a_job(jobs, address="http://somebody-else:8265")
        warning = cancel(job.job_id, target).warning
        assert "it was given to the cluster at http://somebody-else:8265, not to" in warning
        assert cluster.stopped == []
        assert jobs.control(job) is not None

    @pytest.mark.parametrize("state", ["done", "failed", "stopped"])
    def test_what_has_ended_cannot_be(
        self, target: Target, cluster: FakeCluster, jobs: Jobs, state: str
    ) -> None:
        job = a_job(jobs)
        beat(jobs, job.job_id, state=state)
        with pytest.raises(JobError, match=f"it has ended already, {state}"):
            cancel(job.job_id, target)


@pytest.fixture
def archive(tmp_path: Path, model: Path) -> ArchiveSpec:
    shows = tmp_path / "shows"
    shows.mkdir()
    (shows / "a.mp3").write_bytes(b"x")
    rule = {"match": {"path": "*jazz*"}, "model": str(model), "video": {"crf": 30}}
    return build_spec(
        ArchiveSpec,
        {"source": shows, "output": tmp_path / "videos", "model": model, "rules": [rule]},
    )


def test_an_archive_is_a_job_like_any_other(
    archive: ArchiveSpec, target: Target, cluster: FakeCluster, jobs: Jobs
) -> None:
    job = submit(archive, target)
    assert job.kind == "archive"
    kept = jobs.read(job.job_id).spec
    assert build_job(kept) == archive.model_copy(
        update={"run": archive.run.model_copy(update={"work": jobs.work})}
    )
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"rules": [{"video": {"crf": 99}}]}, SpecError, r"rules\.0\.video\.crf"),
        ({"names": "{nonsense}"}, SpecError, "names"),
        ({"source": "/nowhere"}, NotFoundError, "source: /nowhere: there is no file below it"),
        ({"rules": [{"model": "/nowhere"}]}, ModelError, "/nowhere"),
    ],
    ids=["rule", "pattern", "source", "model of a rule"],
)
def test_an_archive_that_cannot_be_is_refused_before_anything_goes(
    changes: dict[str, Any],
    error: type[AshaError],
    told: str,
    archive: ArchiveSpec,
    target: Target,
    cluster: FakeCluster,
) -> None:
    plain = archive.model_dump(mode="json", exclude_defaults=True)
    with pytest.raises(error, match=told):
        submit(build_spec(ArchiveSpec, {**plain, **changes}), target)
    assert cluster.submitted == []


def test_an_archive_on_this_machine_alone_is_not_sent_along(
    archive: ArchiveSpec, target: Target, cluster: FakeCluster
) -> None:
    """Terabytes of shows would go through the job's work root."""
    spec = archive.model_copy(update={"output": "s3://bucket/videos"})
    with pytest.raises(SpecError, match=r"source: .* lies on this machine"):
        submit(spec, replace(target, work="s3://bucket/work", shared_disk=False))
    assert cluster.submitted == []
