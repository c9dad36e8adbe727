"""A farm of several nodes and a real bucket, of which one thing after the other is killed.

Every render here is the same, in a folder of its own, so its bytes are known: those of a render
that nothing disturbed. What had a record when something was killed must not be made again.

All files share a cluster, or two where two processes share the files; who ends one makes his own.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import BaseContext, ForkServerContext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import psutil
import pytest

import asha_ray
from asha_ray.storage import join, s3, storage_of
from tests.cluster import Cluster, cluster
from tests.farm import REPOSITORY, Driver, Render, Stop, Work
from tests.swift import CREDENTIALS, swift
from tests.warm import fork_server

BUCKET = "asha-farm"
NUM_NODES = 3
OPTIONS = {"chunk_seconds": 0.2}
NUM_CHUNKS = 13


@pytest.fixture(scope="package")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of all processes; a Swift server and nothing of a Ray that is there already."""
    with swift(tmp_path_factory.mktemp("swift") / "store") as endpoint, pytest.MonkeyPatch.context() as patch:  # fmt: skip  # noqa: E501
        patch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS[1])
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        s3._client.cache_clear()
        s3._client().create_bucket(Bucket=BUCKET)
        yield {
            **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(REPOSITORY),
            "RAY_AUTH_MODE": "disabled",
        }
        s3._client.cache_clear()


@pytest.fixture(scope="package")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where drivers and workers have their temporary files, as on machines of their own."""
    return {who: tmp_path_factory.mktemp(who) for who in ("driver", "worker")}


@pytest.fixture(scope="package")
def one_cluster(environment: Mapping[str, str], temporary: Mapping[str, Path]) -> Iterator[Cluster]:
    with cluster({**environment, "TMPDIR": str(temporary["worker"])}, NUM_NODES) as made:
        yield made


@pytest.fixture
def farm(one_cluster: Cluster) -> Cluster:
    one_cluster.fill(NUM_NODES)
    return one_cluster


@pytest.fixture(scope="package")
def undisturbed(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    render = Render(str(track), str(model), str(tmp_path_factory.mktemp("serial")), (), OPTIONS)
    asha_ray.render(render.audio, executor="serial", **render.settings())
    return render


@pytest.fixture(scope="package")
def model_in_bucket(environment: Mapping[str, str], model: Path) -> str:
    uri = f"s3://{BUCKET}/model"
    for path in model.iterdir():
        if path.is_file():
            storage_of(uri).upload(path, join(uri, path.name))
    return uri


@pytest.fixture
def expected(undisturbed: Render) -> str:
    return undisturbed.sha256()


@pytest.fixture
def make(
    undisturbed: Render, model_in_bucket: str, track: Path, temporary: Mapping[str, Path],
    request: pytest.FixtureRequest,
) -> Callable[..., Render]:  # fmt: skip
    """The same render again, in a folder of the bucket; what was heard of the track is there."""

    def make(*, heard: bool = True, **options: Any) -> Render:
        folder = f"s3://{BUCKET}/{request.node.name}".replace("[", "-").replace("]", "")
        render = Render(
            str(track), model_in_bucket, folder, tuple(temporary.values()), {**OPTIONS, **options}
        )
        if heard:
            render.take_features(undisturbed)
        return render

    return make


@pytest.fixture(scope="package")
def server() -> ForkServerContext:
    return fork_server()


Start = Callable[..., Driver]


@pytest.fixture
def start(
    environment: Mapping[str, str],
    temporary: Mapping[str, Path],
    tmp_path: Path,
    server: ForkServerContext,
) -> Iterator[Start]:
    """Start a driver, to stop at a step where one is named."""
    drivers: list[Driver] = []

    def run(
        work: Work,
        farm: Cluster,
        step: str = "",
        number: int = 1,
        variables: Mapping[str, str] = MappingProxyType({}),
        context: BaseContext = server,
    ) -> Driver:
        stop = Stop(step, number, tmp_path / f"stop-{len(drivers)}") if step else None
        own = {**environment, "TMPDIR": str(temporary["driver"])}
        said = tmp_path / f"driver-{len(drivers)}"
        arguments = work.arguments()
        drivers.append(Driver(context, said, arguments, farm.address, own, stop, variables))
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.close()


def require_success(driver: Driver) -> dict[str, Any]:
    answer = driver.finish()
    assert answer.code == 0, answer.err
    return answer.result


def events(render: Render, name: str) -> list[Mapping[str, Any]]:
    return [event for event in render.events() if event["event"] == name]


def title_of(process: psutil.Process) -> str:
    """What an actor is doing, as Ray puts it into its name; empty once it is gone."""
    try:
        return " ".join(process.cmdline()).removeprefix("ray::RenderActor")
    except psutil.Error:
        return ""
