"""A farm of several nodes and a real bucket, of which one thing after the other is killed.

Every render here is the same, in a folder of its own, so its bytes are known: those of a render
that nothing disturbed. What had a record when something was killed must not be made again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import psutil
import pytest

import asha_ray
from asha_ray import faults
from asha_ray.farm.on_ray.runtime import HEAD_PATIENCE_S
from asha_ray.storage import join, s3, storage_of
from tests.cluster import Cluster, Node, cluster
from tests.farm import REPOSITORY, Driver, Render, Stop, at, require_gone, wait_for
from tests.proxy import proxy
from tests.swift import CREDENTIALS, swift

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BUCKET = "asha-farm"
NUM_NODES = 3
OPTIONS = {"chunk_seconds": 0.2}
NUM_CHUNKS = 13
IN_DRIVER = ("listened", "planned", "committed", "rendered")
IN_WORKER = ("encoded", "verified", "uploaded", "recorded")
IN_ASSEMBLY = ("joining", "joined", "forgotten", "published", "finished")


def test_every_step_has_its_place() -> None:
    assert sorted(IN_DRIVER + IN_WORKER + IN_ASSEMBLY) == sorted(faults.STEPS)


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where drivers and workers have their temporary files, as on machines of their own."""
    return {who: tmp_path_factory.mktemp(who) for who in ("driver", "worker")}


@pytest.fixture(scope="module")
def one_cluster(environment: Mapping[str, str], temporary: Mapping[str, Path]) -> Iterator[Cluster]:
    with cluster({**environment, "TMPDIR": str(temporary["worker"])}, NUM_NODES) as made:
        yield made


@pytest.fixture
def farm(one_cluster: Cluster) -> Cluster:
    one_cluster.fill(NUM_NODES)
    return one_cluster


@pytest.fixture(scope="module")
def undisturbed(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    render = Render(str(track), str(model), str(tmp_path_factory.mktemp("serial")), (), OPTIONS)
    asha_ray.render(render.audio, executor="serial", **render.settings())
    return render


@pytest.fixture(scope="module")
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


Start = Callable[..., Driver]


@pytest.fixture
def start(
    environment: Mapping[str, str], temporary: Mapping[str, Path], tmp_path: Path
) -> Iterator[Start]:
    """Start a driver, to stop at a step where one is named."""
    drivers: list[Driver] = []

    def run(
        render: Render,
        farm: Cluster,
        step: str = "",
        number: int = 1,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> Driver:
        stop = Stop(step, number, tmp_path / f"stop-{len(drivers)}") if step else None
        own = {**environment, "TMPDIR": str(temporary["driver"])}
        drivers.append(Driver(render, farm.address, own, stop, variables))
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


def test_a_driver_killed_at_one_step_after_the_other(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    """Each run is what follows one kill and what precedes the next."""
    render = make(heard=False, workers=1)
    kept: dict[str, Any] = {}
    for step in faults.STEPS:
        with at(step):
            driver = start(render, farm, step, 2 if step in (*IN_WORKER, "committed") else 1)
            pid = driver.stopped()
            assert (pid == driver.pid) == (step in IN_DRIVER)
            render.require_kept(kept)
            before, kept = kept, render.kept()
            if step in (*IN_WORKER, "committed"):
                assert len(kept) > len(before), "nothing was rendered before the kill"
            assert render.recorded() in (None, expected)
            driver.kill()
            require_gone(pid)  # a worker does not outlive its driver

    result = require_success(start(render, farm))

    assert result["reused_chunks"] == result["chunks"] == len(kept) == NUM_CHUNKS
    render.require_kept(kept)
    render.require_done(expected)


@pytest.mark.parametrize("step", [*IN_WORKER, "joining", "published"])
def test_a_worker_killed_there(
    step: str, farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    render = make(workers=2)
    driver = start(render, farm, step, 3 if step in IN_WORKER else 1)
    pid = driver.stopped()
    kept = render.kept()

    os.kill(pid, signal.SIGKILL)
    result = require_success(driver)

    assert result["reused_chunks"] == 0
    assert len(render.kept()) == NUM_CHUNKS
    render.require_kept(kept)
    render.require_done(expected)
    lost = events(render, "worker-lost")
    assert [event["node_lost"] for event in lost] == ([False] if step in IN_WORKER else [])
    assert events(render, "chunk-failed") == [], "a death is not the chunk's fault"


def test_workers_killed_again_and_again(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    render = make(workers=2)
    driver = start(render, farm)
    kills = 0

    def kill_one_of_two() -> bool:
        nonlocal kills
        if render.num_records() >= 2 * kills + 1:
            busy = [actor for actor in farm.actors() if "render" in _title(actor)]
            for actor in busy[:1]:
                actor.kill()
                kills += 1
        return not driver.is_running()

    wait_for(kill_one_of_two, 600, "the end of the render")
    require_success(driver)

    assert kills >= 2
    assert len(events(render, "worker-lost")) >= 2
    render.require_done(expected)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).removeprefix("ray::RenderActor")
    except psutil.Error:
        return ""


@pytest.mark.parametrize("step", ["encoded", "uploaded"])
def test_a_node_that_vanishes(
    step: str, farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    """With chunks in flight on all nodes: the rest of them finish the render."""
    render = make(workers=NUM_NODES)
    driver = start(render, farm, step, 4)
    pid = driver.stopped()
    kept = render.kept()

    farm.kill(farm.node_of(pid))
    require_success(driver)

    render.require_kept(kept)
    render.require_done(expected)
    lost = [event for event in events(render, "worker-lost") if event["worker"]]
    assert [event["worker"].endswith(f":{pid}") for event in lost] == [True]
    assert events(render, "chunk-failed") == []


def test_a_node_that_joins_is_used(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    """Those that were there stand still until it has come."""
    render = make(workers=NUM_NODES + 1)
    driver = start(render, farm, "encoded", 2)
    driver.stopped()
    frozen = wait_for(
        lambda: actors if len(actors := farm.actors()) == NUM_NODES else [], 240, "all workers"
    )
    for actor in frozen:
        actor.suspend()
    num_records = render.num_records()

    (node,) = farm.add()
    wait_for(lambda: render.num_records() > num_records, 240, "a record of the new node's worker")
    for actor in frozen:
        actor.resume()
    theirs = {actor.pid for actor in farm.actors() if node.holds(actor.pid)}
    require_success(driver)

    workers = {_pid(json.loads(content)["worker"]) for content, _ in render.kept().values()}
    assert workers - {actor.pid for actor in frozen}, "no record is a new worker's"
    assert not theirs or theirs & workers
    render.require_done(expected)


def _pid(worker: str) -> int:
    return int(worker.rpartition(":")[2])


def test_a_node_that_is_drained(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    """It finishes the chunk it has, and gets no other; a worker elsewhere takes its place."""
    render = make(workers=2)
    driver = start(render, farm, "encoded", 2)
    pinned = driver.stopped()
    (other,) = wait_for(
        lambda: [
            actor for actor in farm.actors() if actor.pid != pinned and "render" in _title(actor)
        ],
        240,
        "another worker at work",
    )
    other.suspend()  # in the middle of a chunk, while its node is told to go
    node = farm.node_of(other.pid)
    farm.drain(node, 120)
    (leaving,) = wait_for(lambda: events(render, "worker-leaving"), 60, "news of the drain")
    other.resume()

    require_success(driver)

    assert _pid(leaving["worker"]) == other.pid
    started = [
        event
        for event in events(render, "chunk-started")
        if event["worker"] == leaving["worker"] and event["time"] > leaving["time"]
    ]
    assert started == [], "a chunk was given to a node that leaves"
    done = [
        event["time"]
        for event in events(render, "chunk-done")
        if event["worker"] == leaving["worker"]
    ]
    assert max(done) > leaving["time"], "its last chunk was not finished"
    assert leaving["worker"] in [event["worker"] for event in events(render, "worker-ended")]
    assert events(render, "worker-lost") == []
    render.require_done(expected)
    farm.kill(node)


def test_two_drivers_of_one_render(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    render = make(workers=1)
    both = [start(render, farm), start(render, farm)]

    results = [require_success(driver) for driver in both]

    assert len({result["render_id"] for result in results}) == 1
    assert len(render.kept()) == NUM_CHUNKS
    render.require_done(expected)


MAP = """
import os, pathlib, sys
import numpy as np
from asha_ray.farm.on_ray.ray_map import map_on_ray
from asha_ray.farm.on_ray.runtime import ray_cluster

folder = pathlib.Path(sys.argv[1])

def measured(number):
    pathlib.Path(folder, f"{number}-{os.getpid()}").touch()
    return np.full(300_000, number)  # too large to travel by itself: it lies on its node

with ray_cluster():
    results = map_on_ray(5)(measured, range(6))
    found = [next(results)]
    sys.stdin.readline()
    found += results
    assert [item.mean() for item in found] == list(range(6)), found
"""


def test_what_was_measured_on_a_node_that_vanishes(
    farm: Cluster, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """It is measured again, though its task had ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAP, str(tmp_path)],
        env={**environment, "RAY_ADDRESS": farm.address},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def done() -> dict[int, int]:
        return {
            int(number): int(pid)
            for number, _, pid in (path.name.partition("-") for path in tmp_path.iterdir())
        }

    def on_a_node() -> tuple[int, Node] | None:
        assert process.poll() is None
        if len(done()) < 6:
            return None
        # The first has been fetched; tasks that take no CPU also lie on the head.
        lying = [
            (number, node)
            for number, pid in done().items()
            for node in farm.nodes
            if number and node.holds(pid)
        ]
        return lying[-1]

    try:
        number, node = wait_for(on_a_node, 240, "six results")
        farm.kill(node)
        _, err = process.communicate("go on", timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert len(list(tmp_path.glob(f"{number}-*"))) == 2


def test_a_bucket_that_fails_now_and_then(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str,
    environment: Mapping[str, str],
) -> None:  # fmt: skip
    """A tenth of all requests is refused, and in the midst there is no network for ten seconds."""
    render = make(workers=2)
    with proxy(environment["AWS_ENDPOINT_URL"], seed=3) as network:
        network.refuse(0.1)
        driver = start(render, farm, variables={"AWS_ENDPOINT_URL": network.endpoint})
        wait_for(lambda: render.num_records() or not driver.is_running(), 240, "a record")
        network.cut(10.0)
        assert render.num_records() < NUM_CHUNKS
        require_success(driver)

    assert network.num_refused > 0
    assert network.num_broken > 0
    render.require_done(expected)


def test_a_head_that_dies(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str,
    environment: Mapping[str, str], temporary: Mapping[str, Path],
) -> None:  # fmt: skip
    """The driver says so and ends, and the same command goes on, on another cluster.

    The last test here: the cluster that the others share is lost.
    """
    render = make(workers=1)
    driver = start(render, farm, "encoded", 3)
    driver.stopped()
    kept = render.kept()

    began = time.monotonic()
    farm.head.kill()
    answer = driver.finish()
    seconds = time.monotonic() - began

    assert answer.code == 1
    assert "its head has not answered for" in answer.err
    assert f"2 of {NUM_CHUNKS} chunks are finished and kept in {render.work}" in answer.err
    assert "the same command goes on" in answer.err
    assert "Traceback" not in answer.err
    assert seconds > HEAD_PATIENCE_S, "a head that restarts was not waited for"
    assert seconds < 60, "Ray ends the process after a minute, with words of its own"

    farm.close()
    with cluster({**environment, "TMPDIR": str(temporary["worker"])}, 2) as another:
        result = require_success(start(render, another))

    assert result["reused_chunks"] == len(kept) == 2
    render.require_kept(kept)
    render.require_done(expected)
