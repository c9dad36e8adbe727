"""What a training asks of a cluster: what it has, or may come to have."""

import pytest

from asha_ray.errors import ResourceError
from asha_ray.farm.on_ray.capacity import Capacity, Growth, NodeGroup
from asha_ray.farm.training import train as training
from asha_ray.spec import TrainRun, TrainSpec

HEAD = {"CPU": 0.0}
SMALL, GPU = {"CPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}


def spec(workers: int) -> TrainSpec:
    return TrainSpec(images="i", output="m", run=TrainRun(workers=workers))


@pytest.mark.parametrize(
    ("capacity", "workers", "use_gpu", "cpus"),
    [
        pytest.param(Capacity((SMALL,)), 1, False, 4, id="all of a machine"),
        pytest.param(Capacity((SMALL,)), 2, False, 2, id="half of it each"),
        pytest.param(Capacity((SMALL, SMALL)), 1, False, 4, id="no more than a node has"),
        pytest.param(Capacity((SMALL, SMALL)), 3, False, 2, id="three on two nodes"),
        pytest.param(Capacity((SMALL, GPU)), 1, True, 1, id="a GPU"),
        pytest.param(Capacity((SMALL, GPU)), 2, False, 4, id="too few GPUs"),
        pytest.param(
            Capacity((HEAD,), HEAD, Growth((NodeGroup(GPU, 2),))), 2, True, 1, id="GPUs to come"
        ),
        pytest.param(
            Capacity((HEAD,), HEAD, Growth((NodeGroup(SMALL, 2),))), 2, False, 4, id="nodes to come"
        ),
        pytest.param(
            Capacity((HEAD,), HEAD, Growth(is_unknown=True)), 1, False, 1, id="nobody can say what"
        ),
        pytest.param(
            Capacity((HEAD, SMALL), HEAD, Growth(is_unknown=True)), 2, False, 4, id="more of those"
        ),
        pytest.param(
            Capacity((HEAD, GPU), HEAD, Growth(is_unknown=True)), 2, True, 1, id="more GPUs"
        ),
    ],
)
def test_scaling(
    capacity: Capacity, workers: int, use_gpu: bool, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "cpu_threads", lambda: 8)
    found = training._scaling(spec(workers), capacity)
    assert found.num_workers == workers
    assert found.use_gpu == use_gpu
    assert found.resources_per_worker == {"CPU": cpus}


def test_more_workers_than_will_ever_find_a_place_are_refused() -> None:
    growing = Capacity((HEAD,), HEAD, Growth((NodeGroup(SMALL, 2),)))
    with pytest.raises(
        ResourceError, match="training with 9 workers: the cluster has 8 CPUs; use fewer --workers"
    ):
        training._scaling(spec(9), growing)


def test_a_cluster_without_cpus_is_refused() -> None:
    with pytest.raises(ResourceError, match="it has no CPU to work on"):
        training._scaling(spec(1), Capacity((HEAD,)))
