"""Nodes vanish, join and are drained, and a head dies."""

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from asha_ray.farm.on_ray.runtime import HEAD_PATIENCE_S
from asha_ray.scratch import sweep
from tests.cluster import Cluster, Node, cluster
from tests.farm import Render, require_gone, wait_for
from tests.integration.cluster_faults.conftest import (
    NUM_CHUNKS,
    NUM_NODES,
    Start,
    events,
    require_success,
    title_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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


def sweep_after(pid: int, render: Render) -> None:
    """Do what the next process on its node does, once a worker is gone.

    One that stands still to the end is killed then, maybe after the last one who sweeps.
    """
    require_gone(pid)
    sweep(*render.temporary)


def test_a_node_that_joins_is_used(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    """Those that were there stand still until it has come."""
    render = make(workers=NUM_NODES + 1)
    driver = start(render, farm, "encoded", 2)
    pinned = driver.stopped()
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
    sweep_after(pinned, render)
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
            actor for actor in farm.actors() if actor.pid != pinned and "render" in title_of(actor)
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
    sweep_after(pinned, render)
    render.require_done(expected)
    farm.kill(node)


MAP = """
import os, pathlib, sys, time
import numpy as np
from asha_ray.farm.on_ray.ray_map import map_on_ray
from asha_ray.farm.on_ray.runtime import ray_cluster

folder = pathlib.Path(sys.argv[1])

def measured(number):
    pathlib.Path(folder, f"{number}-{os.getpid()}").touch()
    while len(list(folder.iterdir())) < 6:  # or one worker, there before the others, would do all
        time.sleep(0.05)
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

    with process:
        try:
            number, node = wait_for(on_a_node, 240, "six results")
            farm.kill(node)
            _, err = process.communicate("go on", timeout=240)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert len(list(tmp_path.glob(f"{number}-*"))) == 2


def test_a_head_that_dies(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str,
    environment: Mapping[str, str], temporary: Mapping[str, Path],
) -> None:  # fmt: skip
    """The driver says so and ends, and the same command goes on, on another cluster."""
    render = make(workers=1)
    # A process like a user's: how it gets away from a Ray without a head is what is tested here.
    afresh = multiprocessing.get_context("spawn")
    with cluster({**environment, "TMPDIR": str(temporary["worker"])}, 1) as lost:
        driver = start(render, lost, "encoded", 3, context=afresh)
        driver.stopped()
        kept = render.kept()

        began = time.monotonic()
        lost.head.kill()
        answer = driver.finish()
        seconds = time.monotonic() - began

    assert answer.code == 1
    assert "its head has not answered for" in answer.err
    assert f"2 of {NUM_CHUNKS} chunks are finished and kept in {render.work}" in answer.err
    assert "the same command goes on" in answer.err
    assert "Traceback" not in answer.err
    assert seconds > HEAD_PATIENCE_S, "a head that restarts was not waited for"
    assert seconds < 60, "Ray ends the process after a minute, with words of its own"

    result = require_success(start(render, farm))

    assert result["reused_chunks"] == len(kept) == 2
    render.require_kept(kept)
    render.require_done(expected)
