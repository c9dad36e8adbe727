"""Jobs on a real cluster: a head with a token and a dashboard, nodes, a bucket.

A person submits, watches, stops and repeats; a cluster is lost and another one finishes.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import yaml

import asha_ray
from asha_ray.farm.jobs.status import JobStatus
from asha_ray.storage import journal, s3, storage_of
from asha_ray.storage.journal import read_events
from asha_ray.storage.work import WorkRoot
from tests import media
from tests.cluster import Cluster, cluster
from tests.farm import REPOSITORY, wait_for
from tests.integration.conftest import Answer
from tests.swift import CREDENTIALS, swift

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUCKET = "asha-jobs"
TOKEN = "0123456789abcdef0123456789abcdef"
WAIT_S = 240.0
LONG_S = 180


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of all processes: a Swift server, and nothing of a Ray that is there already."""
    store = tmp_path_factory.mktemp("swift") / "store"
    with swift(store) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS[1])
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            if name not in ("RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
                patch.delenv(name)
        s3._client.cache_clear()
        s3._client().create_bucket(Bucket=BUCKET)
        path = os.pathsep.join([str(REPOSITORY / ".venv" / "bin"), os.environ["PATH"]])
        yield {**os.environ, "PATH": path, "PYTHONPATH": ""}
        s3._client.cache_clear()


@pytest.fixture(scope="module")
def farm(environment: Mapping[str, str]) -> Iterator[Cluster]:
    with cluster(environment, 2, dashboard=True, token=TOKEN) as made:
        yield made


@pytest.fixture
def work(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}/work"


@pytest.fixture(autouse=True)
def configured(farm: Cluster, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a person's configuration says: the cluster, its token, the bucket, prices."""
    folder = tmp_path / "config"
    (folder / "asha-ray").mkdir(parents=True)
    (folder / "asha-ray" / "config.toml").write_text(
        f'address = "{farm.dashboard}"\ntoken_file = "{farm.token_file}"\nwork = "{work}"\n'
        '[prices]\ncurrency = "EUR"\ngpu_hour = 2\ncpu_hour = 0.5\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a song's length; its name is one that only a person would give."""
    samples = media.music(LONG_S, 22050)
    return media.write_sound(tmp_path_factory.mktemp("track") / "песня & 'b'.wav", samples, 22050)


@pytest.fixture
def spec(long_track: Path, model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "render.yaml"
    data = {
        "version": 1,
        "kind": "render",
        "audio": str(long_track),
        "model": str(model),
        "output": f"s3://{BUCKET}/{tmp_path.name}/videos/v.mp4",
        "video": {"fps": 24, "size": 64},
    }
    path.write_text(yaml.safe_dump(data, allow_unicode=True))
    return path


SLOW = ("duration=20", "video.size=640x360", "video.preset=veryslow", "run.chunk_s=1")
"""A render that lasts, in pieces of a second or two."""


@pytest.fixture
def say(cli: Callable[..., Answer]) -> Callable[..., Any]:
    """Run a command that must succeed; what it answers as JSON."""

    def say(*arguments: Any) -> Any:
        answer = cli(*arguments, "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    return say


def wait_until(job: str, true: Callable[[JobStatus], Any], what: str) -> JobStatus:
    def look() -> JobStatus | None:
        status = asha_ray.job_status(job)
        assert not status.has_ended or true(status), f"{what}: {status}"
        return status if true(status) else None

    found: JobStatus = wait_for(look, WAIT_S, what)
    return found


def ended(job: str, state: str) -> JobStatus:
    return wait_until(job, lambda status: status.state == state, f"{job} {state}")


def finished_twice(work: str, render_id: str) -> list[int]:
    """Chunks that were made more than once, by all drivers together."""
    events = read_events(WorkRoot(work).render_uri(render_id))
    made = [event["chunk"] for event in events if event["event"] == "chunk-done"]
    return [chunk for chunk in set(made) if made.count(chunk) > 1]


def versions(uri: str) -> dict[str, str | None]:
    """What would change if any of these were written again."""
    storage = storage_of(uri)
    return {entry.uri: storage.version(entry.uri) for entry in storage.list(uri)}


def test_a_job_stops_when_it_costs_too_much_or_is_cancelled_and_goes_on(
    spec: Path, work: str, farm: Cluster, say: Callable[..., Any], configured: Path
) -> None:
    """One job in three attempts: each goes on from what the one before it has finished."""
    file = configured / "asha-ray" / "config.toml"
    file.write_text(file.read_text().replace("cpu_hour = 0.5", "cpu_hour = 360000"))
    settings = [part for setting in SLOW for part in ("--set", setting)]
    job = say("submit", spec, *settings, "--max-cost", 5)["job_id"]
    dear = ended(job, "stopped")
    assert "has passed --max-cost 5; retry it with a greater one" in dear.reason
    assert dear.cost is not None
    assert dear.cost > 5

    say("jobs", "retry", job, "--max-cost", 10_000_000)
    running = wait_until(
        job,
        lambda status: (status.chunks_done or 0) >= (status.reused_chunks or 0) + 2,
        "two chunks more",
    )
    assert (running.state, running.stage) == ("running", "rendering")
    actors = farm.actors()
    assert actors
    say("jobs", "cancel", job)
    stopped = ended(job, "stopped")
    assert stopped.reason.startswith("cancelled by ")
    _, alive = psutil.wait_procs(actors, timeout=30)
    assert alive == [], "what it held is free"

    again = say("jobs", "retry", job, "--follow")
    assert (again["state"], again["attempt"]) == ("done", 3)
    assert again["reused_chunks"] >= (running.chunks_done or 0)
    assert again["cpu_hours"] > stopped.cpu_hours > dear.cpu_hours > 0
    assert again["cost"] > dear.cost
    assert again["render_id"] == stopped.render_id
    assert finished_twice(work, str(stopped.render_id)) == []


def test_a_training_is_submitted(pictures: Path, tmp_path: Path, say: Callable[..., Any]) -> None:
    path = tmp_path / "train.yaml"
    output = f"s3://{BUCKET}/{tmp_path.name}/model"
    data = {
        "kind": "train", "images": str(pictures), "output": output, "size": 32, "latent": 4,
        "epochs": 2, "encoder_filters": [8, 8], "decoder_filters": [8, 8],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(data))
    done = say("submit", path, "--follow")
    assert (done["state"], done["kind"]) == ("done", "train")
    assert done["result"]["images"] == 19
    assert asha_ray.load_model(output).latent_dim == 4


def test_an_archive_is_submitted(
    model: Path, tmp_path: Path, cli: Callable[..., Answer], say: Callable[..., Any]
) -> None:
    """The model is sent along, the shows are not; one of them is broken, and the job says so."""
    folder = f"s3://{BUCKET}/{tmp_path.name}"
    sound = media.write_sound(tmp_path / "show.wav", media.music(1.5, 11025), 11025)
    for name in ("jazz/2023-05-01 Blue.wav", "talk.wav"):
        storage_of(folder).upload(sound, f"{folder}/shows/{name}")
    storage_of(folder).write(f"{folder}/shows/broken.mp3", b"no sound" * 100)
    spec = tmp_path / "archive.yaml"
    data = {
        "kind": "archive",
        "source": f"{folder}/shows",
        "output": f"{folder}/videos",
        "model": str(model),
        "video": {"fps": 10},
        "rules": [{"match": {"path": "jazz/*"}, "video": {"fps": 20}}],
        "run": {"chunk_s": 0.5},
    }
    spec.write_text(yaml.safe_dump(data))
    job = say("submit", spec)["job_id"]
    status = ended(job, "failed")
    assert status.result is not None
    assert (status.result["done"], status.result["parked"]) == (2, 1)
    assert "1 shows are parked" in status.reason
    found = asha_ray.archive_status(f"{folder}/videos")
    assert (found.num_done, found.num_parked) == (2, 1)
    assert found.cpu_hours > 0
    videos = [entry.uri for entry in storage_of(folder).list(f"{folder}/videos", after=".~")]
    assert f"{folder}/videos/jazz/2023-05-01 Blue.mp4" in videos
    assert f"{folder}/videos/catalogue.parquet" in videos


def test_a_lost_cluster_is_answered_by_another(
    spec: Path,
    work: str,
    environment: Mapping[str, str],
    say: Callable[..., Any],
    cli: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its head dies in mid-render, and its driver with it; storage knows all that is needed."""
    monkeypatch.setattr(journal, "DEAD_AFTER_S", 15.0)
    settings = [part for setting in SLOW for part in ("--set", setting)]
    with cluster(environment, 2, dashboard=True, token=TOKEN) as lost:
        job = say("submit", spec, *settings, "--address", lost.dashboard)["job_id"]
        wait_until(job, lambda status: (status.chunks_done or 0) >= 3, "three chunks")
        lost.head.kill()
        known = storage_of(work).list(f"{work}/segments")
        records = [entry.uri for entry in known if entry.uri.endswith(".json")]
        status = wait_until(job, lambda status: status.state == "lost", "it is lost")
        assert "`asha-ray jobs retry` goes on, on this cluster or another" in status.reason
        refused = cli("submit", spec, "--address", lost.dashboard)
        assert refused.code == 1
        assert "nobody answers" in refused.err

    again = say("jobs", "retry", job, "--follow")
    assert (again["state"], again["attempt"]) == ("done", 2)
    assert again["reused_chunks"] >= len(records) >= 3
    report = asha_ray.inspect(again["output"], decode=False)
    assert not report.problems


class TestDoors:
    """What is refused, with what to do, and before anything is sent."""

    @pytest.fixture
    def other_token(self, tmp_path: Path) -> Path:
        path = tmp_path / "other"
        path.write_text("f" * 32)
        return path

    def test_a_wrong_token(
        self, spec: Path, cli: Callable[..., Answer], other_token: Path, work: str
    ) -> None:
        answer = cli("submit", spec, "--token-file", other_token)
        assert answer.code == 1
        assert "it refuses this token; give the file with its own, --token-file" in answer.err
        assert list(storage_of(work).list(work)) == []

    def test_no_token(
        self,
        spec: Path,
        cli: Callable[..., Answer],
        configured: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        file = configured / "asha-ray" / "config.toml"
        lines = file.read_text().splitlines()
        file.write_text("\n".join(line for line in lines if "token_file" not in line))
        answer = cli("submit", spec)
        assert answer.code == 1
        assert "it wants a token; give the file that holds it" in answer.err

    def test_a_wrong_field(self, spec: Path, cli: Callable[..., Answer]) -> None:
        answer = cli("submit", spec, "--set", "video.crf=99", "--set", "motion.sway=3")
        assert answer.code == 2
        assert "video.crf: Input should be less than or equal to 51" in answer.err
        assert "motion.sway: Extra inputs are not permitted" in answer.err

    def test_a_cluster_without_workers(
        self, spec: Path, cli: Callable[..., Answer], environment: Mapping[str, str]
    ) -> None:
        with cluster(environment, 0, dashboard=True, token=TOKEN) as empty:
            empty.add(0)
            answer = cli("submit", spec, "--address", empty.dashboard)
        assert answer.code == 2
        assert "none of its 1 nodes has a CPU to work on" in answer.err


def test_a_render_of_a_whole_song_is_submitted_and_followed(
    spec: Path, work: str, farm: Cluster, say: Callable[..., Any], cli: Callable[..., Answer]
) -> None:
    """On a node that says it has a GPU, which only Ray believes."""
    farm.add(1, num_cpus=2, num_gpus=1)
    refused = cli("submit", spec, "--set", "run.gpus_per_worker=2")
    assert refused.code == 2
    assert (
        "this cluster has no node that can hold a worker, which takes 1 CPU, 2 GPU" in refused.err
    )

    on_gpus = ("--set", "run.device=cpu", "--set", "run.gpus_per_worker=0.5")
    done = say("submit", spec, *on_gpus, "--follow")
    assert done["state"] == "done"
    assert (done["frames"], done["chunks"], done["reused_chunks"]) == (24 * LONG_S, 18, 0)
    assert done["result"]["frames"] == 24 * LONG_S
    assert done["gpu_hours"] > 0
    assert done["cpu_hours"] == 0
    assert done["cost"] == pytest.approx(2 * done["gpu_hours"], rel=0.01)
    assert done["currency"] == "EUR"
    report = asha_ray.inspect(done["output"], decode=False)
    assert not report.problems
    inputs = versions(f"{work}/inputs")
    assert len(inputs) == 4, "a track and a model's three files"

    # The same once more: nothing is sent, nothing is rendered.
    again = say("submit", spec, *on_gpus, "--set", f"output={done['output']}.2.mp4", "--follow")
    assert (again["state"], again["reused_chunks"]) == ("done", 18)
    assert versions(f"{work}/inputs") == inputs

    listed = say("jobs", "list")["jobs"]
    assert [job["job_id"] for job in listed] == [again["job_id"], done["job_id"]]
    shown = cli("jobs", "list").out
    assert done["job_id"] in shown
    assert "100%" in shown
    status = cli("jobs", "status", done["job_id"]).out
    assert "4320 of 4320, in 18 of 18 chunks" in status
    log = cli("jobs", "logs", done["job_id"]).out
    assert "rendering 4320 frames" in log
    assert log.rstrip().endswith(f"done: {done['output']}")
