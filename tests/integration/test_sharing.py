"""A cluster that several renders use, that grows and shrinks, and that is asked for too much.

Workers are stopped in the middle of a chunk (SIGSTOP) while something else must happen: so nothing
hangs on how fast this machine is.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import asha_ray
from asha_ray.farm.rendering.scheduler import SLOW_S
from asha_ray.storage import join
from asha_ray.storage.journal import read_heartbeat
from tests.cluster import Cluster, cluster
from tests.farm import REPOSITORY, Driver, Render, wait_for
from tests.warm import fork_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG = {"chunk_seconds": 0.1, "size": "640x360"}
NUM_LONG = 26
SHORT = {"chunk_seconds": 0.5, "priority": 5}
NUM_SHORT, NUM_REUSED = 6, 5
WAIT_S = 240.0
METRICS = (
    "asha_frames_total", "asha_frames_per_second", "asha_chunk_seconds_bucket",
    "asha_chunks_waiting", "asha_workers", "asha_retries_total", "asha_chunks_reused_total",
    "asha_segment_bytes_total",
)  # fmt: skip


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of all processes, with nothing of a Ray that is there already."""
    return {
        **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
        "PYTHONPATH": str(REPOSITORY),
        "RAY_AUTH_MODE": "disabled",
        "RAY_metrics_report_interval_ms": "1000",
        "ASHA_JOB": "evening",
    }


@pytest.fixture(scope="module")
def farm(environment: Mapping[str, str]) -> Iterator[Cluster]:
    with cluster(environment, 2) as made:
        yield made


Make = Callable[..., Render]


@pytest.fixture(scope="module")
def expected(
    track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mapping[str, Any]], Render]:
    """The same renders, in this process and undisturbed."""
    made: dict[str, Render] = {}

    def render(options: Mapping[str, Any]) -> Render:
        looks = {name: value for name, value in options.items() if name != "priority"}
        if str(looks) not in made:
            folder = str(tmp_path_factory.mktemp("serial"))
            alone = Render(str(track), str(model), folder, (), looks)
            asha_ray.render(alone.audio, executor="serial", **alone.settings())
            made[str(looks)] = alone
        return made[str(looks)]

    return render


@pytest.fixture
def make(track: Path, model: Path, tmp_path: Path) -> Make:
    def make(name: str, options: Mapping[str, Any]) -> Render:
        return Render(str(track), str(model), str(tmp_path / name), (), options)

    return make


Start = Callable[[Render, Cluster], Driver]


@pytest.fixture
def start(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Start]:
    drivers: list[Driver] = []

    def run(render: Render, on: Cluster) -> Driver:
        said = tmp_path / f"driver-{len(drivers)}"
        work = render.arguments()
        drivers.append(Driver(fork_server(), said, work, on.address, environment, None, {}))
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.close()


def require_success(driver: Driver) -> dict[str, Any]:
    answer = driver.finish()
    assert answer.code == 0, answer.err
    return answer.result


def named(render: Render, *names: str) -> list[Mapping[str, Any]]:
    events = [event for event in render.events() if event["event"] in names]
    return sorted(events, key=lambda event: str(event["time"]))


def require_once(render: Render, num_chunks: int) -> None:
    """Every chunk was done once, and begun once, or again where it took too long."""
    begun, done = (
        sorted(event["chunk"] for event in named(render, name))
        for name in ("chunk-started", "chunk-done")
    )
    repeated = named(render, "chunk-repeated")
    assert all(event["after_s"] >= SLOW_S for event in repeated)
    assert begun == sorted([*range(num_chunks), *(event["chunk"] for event in repeated)])
    assert done == list(range(num_chunks))


@contextmanager
def frozen(
    on: Cluster, driver: Driver, count: int, but: Sequence[psutil.Process] = ()
) -> Iterator[list[psutil.Process]]:
    """So many workers, each in the middle of a chunk; none of those that are named."""
    held: dict[int, psutil.Process] = {}

    def all_are_held() -> bool:
        assert driver.is_running(), driver.finish()
        for actor in on.working():
            if actor in but:
                continue
            with suppress(psutil.Error):
                actor.suspend()
                # It may have been done with its chunk just before.
                if "RenderActor.render" in " ".join(actor.cmdline()):
                    held[actor.pid] = actor
                else:
                    actor.resume()
        return len(held) >= count

    try:
        wait_for(all_are_held, WAIT_S, f"{count} workers at work")
        yield list(held.values())
    finally:
        for actor in held.values():
            with suppress(psutil.Error):
                actor.resume()


def test_a_preview_goes_before_a_long_render(
    farm: Cluster, make: Make, start: Start, expected: Callable[[Mapping[str, Any]], Render]
) -> None:
    """It has both nodes after a chunk, at once, and the long render goes on when it is done."""
    long, short = make("long", LONG), make("short", SHORT)
    long_driver = start(long, farm)
    with frozen(farm, long_driver, 2) as held:
        short_driver = start(short, farm)
        yielding = wait_for(
            lambda: found if len(found := named(long, "worker-yielding")) == 2 else [],
            WAIT_S,
            "both workers being asked back",
        )
        assert long.num_records() < NUM_LONG
        assert short.num_records() == 0

    with frozen(farm, short_driver, 2, but=held):
        assert long_driver.is_running()
    require_success(short_driver)
    assert long_driver.is_running(), "the short one is done first"
    require_success(long_driver)

    asked_back = max(str(event["time"]) for event in yielding)
    last_of_short = str(named(short, "chunk-done")[-1]["time"])
    meanwhile = [
        event
        for event in named(long, "chunk-started")
        if asked_back < str(event["time"]) < last_of_short
        and event["worker"] in {told["worker"] for told in yielding}
    ]
    assert meanwhile == [], "who was asked back began no other chunk"
    require_once(long, NUM_LONG)
    require_once(short, NUM_SHORT)
    assert named(long, "worker-lost", "chunk-failed", "chunk-repeated") == []
    assert long.sha256() == expected(LONG).sha256()
    assert short.sha256() == expected(SHORT).sha256()


def test_what_a_render_tells_of_itself(
    farm: Cluster, make: Make, start: Start, track: Path
) -> None:
    """All figures, with names that dashboards know, at the nodes' own ports; and a heartbeat."""
    render = make("told", {**LONG, "seed": 3})  # whose figures are nobody else's
    first = {**render.settings(), "duration": 0.5, "out": f"{render.folder}/first.mp4"}
    asha_ray.render(str(track), executor="serial", **first)
    driver = start(render, farm)
    wait_for(lambda: render.num_records() > NUM_REUSED, WAIT_S, "a record of its own")
    with frozen(farm, driver, 2) as held:
        held[0].kill()
        # With the one that comes in its place, all are held: the driver lives and tells.
        with frozen(farm, driver, 1, but=held):
            render_id = whole_render(render)
            text = wait_for(
                lambda: text if is_all_there(text := farm.metrics(), render_id) else "",
                WAIT_S,
                "all metrics",
            )
            folder = join(render.work, "renders", render_id)
            wait_for(
                lambda: (read_heartbeat(folder) or {}).get("workers"), WAIT_S, "workers told of"
            )
    require_success(driver)

    assert value(text, "asha_retries_total", render_id) == 1
    assert value(text, "asha_chunks_reused_total", render_id) == NUM_REUSED
    assert 0 < value(text, "asha_frames_total", render_id) <= 151 - 30
    assert value(text, "asha_segment_bytes_total", render_id) > 1000
    heartbeat = read_heartbeat(folder)
    assert heartbeat is not None
    assert (heartbeat["retries"], heartbeat["workers"]) == (1, 0), "as it ended"


def whole_render(render: Render) -> str:
    """Its id; not that of the first half second, which has but a few chunks."""
    folders = [path.name for path in Path(render.work, "renders").iterdir()]
    beats = {name: read_heartbeat(join(render.work, "renders", name)) or {} for name in folders}
    (found,) = [name for name, beat in beats.items() if beat.get("chunks") == NUM_LONG]
    return found


def lines_of(metrics: str, name: str, render_id: str) -> list[str]:
    """Of one render, and of the job that the environment names."""
    tags = (f'render="{render_id}"', 'job="evening"')
    lines = [line for line in metrics.splitlines() if line.startswith(f"ray_{name}{{")]
    return [line for line in lines if all(tag in line for tag in tags)]


def is_all_there(metrics: str, render_id: str) -> bool:
    return all(lines_of(metrics, name, render_id) for name in METRICS)


def value(metrics: str, name: str, render_id: str) -> float:
    (line,) = lines_of(metrics, name, render_id)
    return float(line.rpartition(" ")[2])


def test_what_no_node_holds_is_refused_at_once(farm: Cluster, make: Make, start: Start) -> None:
    answer = start(make("too-much", {"gpus_per_worker": 2}), farm).finish(60)

    assert answer.code == 2
    assert (
        "it asks for 1 CPU and 2 GPUs, and this cluster has no node that can hold it; the largest "
        "has 1 CPU and 0 GPUs; give less --gpus-per-worker"
    ) in answer.err
    assert "Traceback" not in answer.err


def test_shares_of_a_gpu(
    farm: Cluster, make: Make, start: Start, expected: Callable[[Mapping[str, Any]], Render]
) -> None:
    """On a node that says it has one; that it has none is told where it would be used."""
    (node,) = farm.add(1, num_cpus=2, num_gpus=1)
    render = make("shares", {**SHORT, "device": "cpu", "gpus_per_worker": 0.5})
    answer = start(make("cuda", SHORT), farm).finish()
    driver = start(render, farm)
    with frozen(farm, driver, 2) as held:
        assert all(node.holds(worker.pid) for worker in held), "two halves of its GPU"
    require_success(driver)

    assert answer.code == 2
    assert "finds no CUDA device there" in answer.err
    assert "--device cpu" in answer.err
    assert render.sha256() == expected(SHORT).sha256()
    farm.kill(node)


def test_nodes_come_for_a_render_and_go_after_it(
    environment: Mapping[str, str], make: Make, start: Start,
    expected: Callable[[Mapping[str, Any]], Render],
) -> None:  # fmt: skip
    """From none to two and back, with an autoscaler of Ray's."""
    render = make("grown", LONG)
    with cluster(environment, 0, most_added=2) as growing:
        growing.await_head()
        driver = start(render, growing)
        with frozen(growing, driver, 2):
            assert growing.num_nodes() == 3
        answer = driver.finish()
        assert answer.code == 0, answer.err
        wait_for(lambda: growing.num_nodes() == 1, WAIT_S, "nodes to be taken away")

    assert "waiting for the cluster to add a node: none is there yet that holds 1 CPU" in answer.err
    require_once(render, NUM_LONG)
    assert render.sha256() == expected(LONG).sha256()
