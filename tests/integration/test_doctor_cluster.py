"""`doctor` with a real cluster that wants a token, and a bucket of a real S3 server."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest

from asha_ray.config import ConfigFile, find_target
from asha_ray.farm.tools.doctor import Finding
from asha_ray.farm.tools.doctor_cluster import examine_cluster
from asha_ray.farm.tools.probe import NO_WORK, read_report
from asha_ray.storage import s3, storage_of
from tests.cluster import Cluster, cluster
from tests.farm import REPOSITORY
from tests.swift import CREDENTIALS, swift

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BUCKET = "asha-doctor"
TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of all processes; a Swift server, and nothing of a Ray that is there already."""
    with (
        swift(tmp_path_factory.mktemp("swift") / "store") as endpoint,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS[1])
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        s3._client.cache_clear()
        s3._client().create_bucket(Bucket=BUCKET)
        own = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        # Ray gives `python` to a shell.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        yield {**own, "PATH": path}
        s3._client.cache_clear()


@pytest.fixture(scope="module")
def empty(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A head that wants a token, and nothing else yet."""
    with cluster(environment, 0, dashboard=True, token=TOKEN) as made:
        yield made


@pytest.fixture
def farm(empty: Cluster) -> Cluster:
    empty.fill(1)
    return empty


PATIENCE_S = 500.0
"""The command's own two minutes may be short on a machine that is busy with other things."""


def doctor(of: Cluster, work: str) -> dict[str, Finding]:
    """What is found, by name."""
    target = find_target(of.dashboard, str(of.token_file), work, file=ConfigFile())
    findings = examine_cluster(target, limit_s=PATIENCE_S)
    for secret in (TOKEN, CREDENTIALS[1]):
        assert secret not in str(findings)
    return {each.name: each for each in findings}


def remedies(found: Mapping[str, Finding]) -> dict[str, str]:
    return {name: each.remedy for name, each in found.items() if each.remedy}


def test_a_probe_without_a_worker_says_so_and_ends(
    empty: Cluster, environment: Mapping[str, str]
) -> None:
    """It must be the first: there is no node yet. A cluster that grows would add one."""
    empty.await_head()
    done = subprocess.run(
        [sys.executable, "-m", "asha_ray", "probe", "mine", "--work", NO_WORK, "--seconds", "5"],
        env={
            **environment, "RAY_ADDRESS": empty.address, "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(empty.token_file),
        },
        cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip

    report = read_report("mine", done.stdout)
    assert report is not None, done.stderr
    [found] = report.findings
    assert found.value == "starting a worker with a CPU: none was there in 3 s"
    assert found.remedy


def test_a_sound_cluster_needs_nothing(farm: Cluster) -> None:
    found = doctor(farm, f"s3://{BUCKET}/work")

    assert remedies(found) == {}
    assert {
        "token", "cluster", "nodes", "head", "storage", "asha-ray", "worker asha-ray",
        "worker python", "worker packages", "worker imports", "worker gpu", "worker dtypes",
        "worker ffmpeg", "worker memory", "worker disk", "worker s3", "worker storage",
    } <= set(found)  # fmt: skip
    assert found["nodes"].value.startswith("2, with 1 CPUs, 0 GPUs")
    left = [entry.uri for entry in storage_of(f"s3://{BUCKET}").list(f"s3://{BUCKET}/work")]
    assert left == []


def test_a_wrong_bucket_is_told_from_here_and_from_the_worker(farm: Cluster) -> None:
    found = doctor(farm, "s3://no-such-bucket/work")

    assert set(remedies(found)) == {"storage", "worker storage"}
    assert "there is no such bucket" in found["worker storage"].value
