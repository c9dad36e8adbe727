"""Every process of a render is killed, at each of its steps, and its network fails."""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from asha_ray import faults
from tests.cluster import Cluster
from tests.farm import Render, at, require_gone, wait_for
from tests.integration.cluster_faults.conftest import (
    NUM_CHUNKS,
    Start,
    events,
    require_success,
    title_of,
)
from tests.proxy import proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IN_DRIVER = ("listened", "planned", "committed", "rendered")
IN_WORKER = ("encoded", "verified", "uploaded", "recorded")
IN_ASSEMBLY = ("joining", "joined", "forgotten", "published", "finished")


def test_every_step_has_its_place() -> None:
    assert sorted(IN_DRIVER + IN_WORKER + IN_ASSEMBLY) == sorted(faults.STEPS)


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
            before, kept = kept, render.require_kept(kept)
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
    assert len(render.require_kept(kept)) == NUM_CHUNKS
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
            busy = [actor for actor in farm.actors() if "render" in title_of(actor)]
            for actor in busy[:1]:
                actor.kill()
                kills += 1
        return not driver.is_running()

    wait_for(kill_one_of_two, 600, "the end of the render")
    require_success(driver)

    assert kills >= 2
    assert len(events(render, "worker-lost")) >= 2
    render.require_done(expected)


def test_two_drivers_of_one_render(
    farm: Cluster, make: Callable[..., Render], start: Start, expected: str
) -> None:
    render = make(workers=1)
    both = [start(render, farm), start(render, farm)]

    results = [require_success(driver) for driver in both]

    assert len({result["render_id"] for result in results}) == 1
    assert len(render.kept()) == NUM_CHUNKS
    render.require_done(expected)


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
