"""What clusters hold and could come to hold, and what is asked of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.core.generated import autoscaler_pb2

from asha_ray.errors import ResourceError
from asha_ray.farm.on_ray.capacity import (
    PLENTY,
    Capacity,
    Growth,
    NodeGroup,
    num_fitting,
    told,
    with_memory,
)
from asha_ray.farm.on_ray.cluster import (
    growth_configured,
    growth_reported,
    infeasible,
    require_cpu,
)
from asha_ray.farm.on_ray.workers import Asked, ask, num_workers

GB = 1e9
HEAD = {"CPU": 0.0, "memory": 2 * GB}
SMALL = {"CPU": 4.0, "memory": 8 * GB}
LARGE = {"CPU": 32.0, "GPU": 4.0, "memory": 100 * GB}
FROM_ZERO = Capacity((HEAD,), HEAD, Growth((NodeGroup(SMALL, 10), NodeGroup(LARGE, 2)), most=11))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"CPU": 7.0}, 4),
        ({"CPU": 1.0, "GPU": 0.5}, 8),
        ({"CPU": 1.0, "GPU": 1 / 3}, 12),
        ({"CPU": 1.0, "GPU": 0.4}, 8),
        ({"CPU": 1.0, "GPU": 2.0}, 2),
        ({"CPU": 1.0, "memory": 30 * GB}, 3),
        ({"CPU": 1.0, "TPU": 1.0}, 0),
        ({"CPU": 33.0}, 0),
    ],
)
def test_how_many_a_node_holds(asked: dict[str, float], expected: int) -> None:
    assert num_fitting(LARGE, asked) == expected


def test_a_cluster_that_grows() -> None:
    assert FROM_ZERO.now({"CPU": 1.0}) == 0
    assert FROM_ZERO.at_most({"CPU": 4.0}) == 2 * 8 + 9, "large nodes first, eleven in all"
    assert FROM_ZERO.at_most({"CPU": 1.0, "GPU": 1.0}) == 8
    assert FROM_ZERO.at_most({"CPU": 64.0}) == 0
    assert FROM_ZERO.largest("GPU") == 4
    assert FROM_ZERO.total()["GPU"] == 8
    assert FROM_ZERO.total()["CPU"] == 2 * 32 + 9 * 4


def test_kinds_of_nodes_that_may_come() -> None:
    assert FROM_ZERO.kinds_of_nodes() == [(HEAD, 1), (LARGE, 2), (SMALL, 9)]
    marked = {**SMALL, "node:10.0.0.1": 1.0}
    assert Capacity((marked, SMALL, LARGE)).kinds_of_nodes() == [(SMALL, 2), (LARGE, 1)]
    unknown = Capacity((SMALL,), {}, Growth(is_unknown=True))
    assert unknown.kinds_of_nodes() == [(SMALL, 2)]


def test_nodes_that_are_there() -> None:
    """Nothing else is anybody's due."""
    assert FROM_ZERO.living_nodes() == [(HEAD, 1)]
    assert Capacity((SMALL, LARGE, SMALL), {}, Growth(is_unknown=True)).living_nodes() == [
        (SMALL, 2),
        (LARGE, 1),
    ]


def test_what_the_head_holds_counts_beside_what_comes() -> None:
    capacity = Capacity((SMALL,), SMALL, Growth((NodeGroup(SMALL, 2),)))
    assert capacity.at_most({"CPU": 2.0}) == 6


def test_nodes_that_nobody_configured_count() -> None:
    capacity = Capacity((HEAD, LARGE), HEAD, Growth((NodeGroup(SMALL, 1),)))
    assert capacity.at_most({"CPU": 4.0}) == 8


def test_where_there_is_no_end_there_is_one() -> None:
    assert Capacity((), {}, Growth((NodeGroup(SMALL),))).at_most({"CPU": 1.0}) == PLENTY


def test_where_nobody_can_say_it_is_asked_for_more_step_by_step() -> None:
    capacity = Capacity((SMALL,), {}, Growth(is_unknown=True))
    assert capacity.at_most({"CPU": 1.0}) == 9
    capacity.require({"CPU": 100.0}, "starting", "ask for less")


@given(
    st.lists(st.sampled_from([HEAD, SMALL, LARGE]), max_size=4),
    st.lists(st.builds(NodeGroup, st.sampled_from([SMALL, LARGE]), st.integers(0, 5)), max_size=3),
    st.fixed_dictionaries({"CPU": st.floats(1, 40)}, optional={"GPU": st.sampled_from([0.5, 1])}),
)
def test_what_is_not_refused_finds_a_place(
    nodes: list[dict[str, float]], groups: list[NodeGroup], asked: dict[str, float]
) -> None:
    """Else it would wait for ever."""
    capacity = Capacity(tuple(nodes), {}, Growth(tuple(groups)))
    try:
        capacity.require(asked, "starting", "ask for less")
    except ResourceError:
        assert capacity.at_most(asked) == 0
    else:
        assert capacity.at_most(asked) > 0


class TestRefusal:
    def test_says_what_was_asked_for_and_what_there_is(self) -> None:
        capacity = Capacity((HEAD, SMALL))
        with pytest.raises(ResourceError) as caught:
            capacity.require({"CPU": 3.0, "GPU": 0.5}, "starting a render worker", "give less")
        assert str(caught.value) == (
            "starting a render worker: it asks for 3 CPUs and 0.5 GPUs, and this cluster has no "
            "node that can hold it; the largest has 4 CPUs and 0 GPUs; give less, or add a larger "
            "node"
        )

    def test_says_that_the_autoscaler_does_not_help(self) -> None:
        with pytest.raises(ResourceError) as caught:
            FROM_ZERO.require({"CPU": 1.0, "GPU": 8.0}, "training", "give less")
        assert "its autoscaler may add none" in str(caught.value)
        assert "the largest has 32 CPUs and 4 GPUs" in str(caught.value)

    def test_a_cluster_without_cpus(self) -> None:
        with pytest.raises(ResourceError, match="it has no CPU to work on; add a node with some"):
            require_cpu(Capacity((HEAD,)))
        require_cpu(FROM_ZERO)
        require_cpu(Capacity((HEAD,), HEAD, Growth(is_unknown=True)))


def test_resources_in_words() -> None:
    assert told({"CPU": 1.0}) == "1 CPU"
    assert told({"CPU": 7.0, "GPU": 0.5, "memory": 12.34e9}) == (
        "7 CPUs, 0.5 GPUs and 12.3 GB of memory"
    )


ASKED = {"CPU": 3.0}


class TestMemory:
    def test_is_asked_for(self) -> None:
        found = with_memory(Capacity((HEAD, SMALL)), ASKED, 3 * GB)
        assert found == {"CPU": 3.0, "memory": 3 * GB}

    def test_is_never_what_keeps_a_worker_off_a_small_machine(self) -> None:
        """A node declares what was free when Ray started, and needs are estimates."""
        found = with_memory(Capacity((SMALL,)), ASKED, 10 * GB)
        assert found["memory"] == 8 * GB

    def test_is_refused_where_it_is_far_too_much(self) -> None:
        capacity = Capacity((SMALL,))
        found = with_memory(capacity, ASKED, 20 * GB)
        with pytest.raises(ResourceError, match=r"20\.0 GB of memory.*the largest has .*8\.0 GB"):
            capacity.require(found, "starting", "make smaller pictures")

    def test_is_not_asked_of_an_autoscaler_that_knows_of_none(self) -> None:
        """It would add no node, and the worker would wait for ever."""
        growth = Growth((NodeGroup({"CPU": 8.0}, 2),))
        assert with_memory(Capacity((HEAD,), HEAD, growth), ASKED, GB) == ASKED
        unknown = Growth(is_unknown=True)
        assert with_memory(Capacity((SMALL,), {}, unknown), ASKED, GB) == ASKED


class TestWorkers:
    def test_on_cpus_one_uses_a_node_and_leaves_a_core(self) -> None:
        asked = ask(Capacity((SMALL,)), on_gpu=False, gpus_per_worker=None, most_cores=8)
        assert asked == Asked(4)
        assert asked.resources == {"CPU": 3.0}
        assert (
            num_workers(
                Capacity((SMALL, SMALL)), asked.counted(asked.resources), wanted=None, most=None
            )
            == 2
        )

    def test_on_gpus_as_many_share_one_as_there_are_cores_to_encode(self) -> None:
        asked = ask(Capacity((HEAD, LARGE)), on_gpu=True, gpus_per_worker=None, most_cores=8)
        assert asked == Asked(8, 1.0)
        many = {**LARGE, "CPU": 128.0}
        assert ask(Capacity((many,)), on_gpu=True, gpus_per_worker=None, most_cores=8) == Asked(
            8, 0.25
        )

    @pytest.mark.parametrize(("gpus", "cores"), [(0.25, 2), (0.5, 4), (1.0, 8), (2.0, 8)])
    def test_a_persons_share_of_gpus_brings_as_many_cores(self, gpus: float, cores: int) -> None:
        """Else GPUs would be left that no worker finds CPUs beside."""
        capacity = Capacity((HEAD, LARGE))
        asked = ask(capacity, on_gpu=True, gpus_per_worker=gpus, most_cores=8)
        assert asked == Asked(cores, gpus)
        assert capacity.now(asked.counted(asked.resources)) == 4 / gpus

    def test_more_gpus_than_a_node_has_are_refused(self) -> None:
        capacity = Capacity((HEAD, LARGE))
        asked = ask(capacity, on_gpu=True, gpus_per_worker=5.0, most_cores=8)
        with pytest.raises(ResourceError, match="give less --gpus-per-worker"):
            asked.require(capacity)

    @pytest.mark.parametrize(
        ("capacity", "wanted", "most", "expected"),
        [
            pytest.param(Capacity((SMALL,) * 3), None, None, 3, id="as it is"),
            pytest.param(Capacity((SMALL,) * 3), None, 2, 2, id="chunks left"),
            pytest.param(Capacity((SMALL,) * 3), 5, None, 5, id="more than there is, as told"),
            pytest.param(Capacity((SMALL,) * 3), 5, 4, 4, id="as told, chunks left"),
            pytest.param(FROM_ZERO, None, None, 1, id="no node before it is known what for"),
            pytest.param(FROM_ZERO, 20, None, 1, id="nor where told"),
            pytest.param(FROM_ZERO, None, 99, 25, id="all that may come"),
            pytest.param(FROM_ZERO, None, 7, 7, id="no more than chunks"),
            pytest.param(FROM_ZERO, 20, 99, 20, id="as many as told"),
            pytest.param(Capacity((HEAD,)), None, None, 1, id="one in any case"),
        ],
    )
    def test_how_many(
        self, capacity: Capacity, wanted: int | None, most: int | None, expected: int
    ) -> None:
        counted = {"CPU": 4.0}
        assert num_workers(capacity, counted, wanted=wanted, most=most) == expected


class TestGrowth:
    def test_as_the_autoscaler_was_configured(self) -> None:
        found = growth_configured(
            {
                "max_workers": 5,
                "head_node_type": "head",
                "available_node_types": {
                    "head": {"resources": {"CPU": 2}},
                    "cpu": {"resources": {"CPU": 16, "memory": 8 * GB}, "max_workers": 3},
                    "gpu": {"resources": {"CPU": 8, "GPU": 1}},
                },
            }
        )
        cpu = NodeGroup({"CPU": 16, "memory": 8 * GB}, 3)
        assert found == Growth((cpu, NodeGroup({"CPU": 8, "GPU": 1}, 5)), 5)

    def test_as_reported_to_ray(self) -> None:
        config = autoscaler_pb2.ClusterConfig()
        config.node_group_configs.add(resources={"CPU": 4, "GPU": 1}, max_count=-1)
        config.node_group_configs.add(resources={"CPU": 8}, max_count=2)
        found = growth_reported(config)
        assert found.groups == (
            NodeGroup({"CPU": 4.0, "GPU": 1.0}, math.inf),
            NodeGroup({"CPU": 8.0}, 2),
        )

    def test_what_an_autoscaler_says_it_cannot_add(self) -> None:
        state = autoscaler_pb2.AutoscalingState()
        state.infeasible_resource_requests.add(resources_bundle={"CPU": 64.0})
        assert infeasible(state, {"CPU": 64.0, "GPU": 0.0})
        assert not infeasible(state, {"CPU": 8.0})
