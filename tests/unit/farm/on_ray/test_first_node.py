"""What is chosen for a cluster of which nobody can say what its autoscaler may add."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import TaskUnschedulableError

from asha_ray.errors import ResourceError
from asha_ray.farm.on_ray import cluster, runtime
from asha_ray.farm.on_ray import executor as ray_executor
from asha_ray.farm.on_ray.capacity import Capacity, Growth
from asha_ray.farm.on_ray.executor import RayExecutor
from asha_ray.spec import RunSettings

HEAD, SMALL, GPU = {"CPU": 0.0}, {"CPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}


class Ray:
    """A cluster with nothing but a head, whose autoscaler has one kind of node.

    Args:
        kind: of node that it may add.
        how: it says that it adds none: in its state, or by ending the task.
    """

    def __init__(self, kind: dict[str, float] | None, how: str = "state") -> None:
        self.kind, self.how = kind, how
        self.nodes: list[dict[str, float]] = [HEAD]
        self.asked: list[dict[str, float]] = []
        self.cancelled: list[int] = []

    def capacity(self, growth: Growth) -> Capacity:
        return Capacity(tuple(self.nodes), HEAD, growth)

    def remote(self, **options: float) -> Callable[..., Any]:
        named = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}

        def ask() -> int:
            self.asked.append({kind: amount for kind, amount in named.items() if amount})
            return len(self.asked) - 1

        return lambda _: SimpleNamespace(remote=ask)

    def _has(self, reference: int) -> bool:
        wanted = self.asked[reference].items()
        return self.kind is not None and all(self.kind.get(k, 0) >= n for k, n in wanted)

    def wait(self, references: list[int], **_: object) -> tuple[list[int], list[int]]:
        (reference,) = references
        if self._has(reference):
            self.nodes = [HEAD, self.kind or {}]
            return references, []
        return (references, []) if self.how == "error" else ([], references)

    def get(self, reference: int) -> None:
        if not self._has(reference):
            raise TaskUnschedulableError("nowhere")

    def cancel(self, reference: int) -> None:
        self.cancelled.append(reference)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="here")

    def state(self, _: str) -> Any:
        bundles = [asked for number, asked in enumerate(self.asked) if not self._has(number)]
        requests = [SimpleNamespace(resources_bundle=bundle) for bundle in bundles]
        return SimpleNamespace(infeasible_resource_requests=requests)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ray, str], RayExecutor]:
    def starting(ray: Ray, device: str) -> RayExecutor:
        for module in (cluster, runtime):
            monkeypatch.setattr(module, "ray", ray)
        monkeypatch.setattr(cluster, "require_head", lambda: None)
        monkeypatch.setattr(cluster, "_autoscaling_state", ray.state)
        monkeypatch.setattr(ray_executor, "read_capacity", ray.capacity)
        monkeypatch.setattr(ray_executor, "is_one_machine", lambda: False)
        executor = RayExecutor(RunSettings.model_validate({"device": device}))
        executor._growth = Growth(is_unknown=True)
        return executor

    return starting


@pytest.mark.parametrize("how", ["state", "error"])
@pytest.mark.parametrize(
    ("kind", "device", "expected", "cores", "num_asked"),
    [
        pytest.param(GPU, "auto", "cuda", 8, 1, id="a GPU that may come"),
        pytest.param(SMALL, "auto", "cpu", 4, 2, id="none has a GPU"),
        pytest.param(SMALL, "cpu", "cpu", 4, 1, id="none is wanted"),
        pytest.param(GPU, "cuda", "cuda", 8, 1, id="a GPU is wanted"),
    ],
)
def test_a_node_is_there_before_it_is_decided_what_workers_are(
    kind: dict[str, float], device: str, expected: str, cores: int, num_asked: int, how: str,
    start: Callable[[Ray, str], RayExecutor],
) -> None:  # fmt: skip
    """Else all would be rendered on the CPUs of machines with GPUs, and on one core of each."""
    ray, notes = Ray(kind, how), list[str]()
    executor = start(ray, device)
    executor._await_first_node(notes.append)

    assert executor._device() == expected
    assert executor.cores() == cores
    assert len(ray.asked) == len(notes) == num_asked
    assert ray.cancelled == list(range(num_asked)), "nothing is asked for any longer"
    assert "waiting for the cluster to add a node: none is there yet that holds 1 CPU" in notes[0]


@pytest.mark.parametrize("how", ["state", "error"])
@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_where_no_node_may_come_that_is_said(
    device: str, how: str, start: Callable[[Ray, str], RayExecutor]
) -> None:
    ray = Ray(None, how)
    with pytest.raises(ResourceError, match="autoscaler can add none"):
        start(ray, device)._await_first_node(lambda _: None)
    assert len(ray.cancelled) == len(ray.asked)


def test_where_a_node_is_there_none_is_waited_for(
    start: Callable[[Ray, str], RayExecutor],
) -> None:
    """A GPU that may never come is not waited for where CPUs are there."""
    ray = Ray(GPU)
    ray.nodes.append(SMALL)
    executor = start(ray, "auto")
    executor._await_first_node(lambda _: None)
    assert ray.asked == []
    assert executor._device() == "cpu"
