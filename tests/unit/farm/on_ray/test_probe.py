"""Where a probe goes: to a worker with a GPU, not to the head, and nowhere else than it could."""

from typing import Any

import pytest

from asha_ray.farm.on_ray import probe

HEAD = {"node:__internal_head__": 1.0}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(*nodes: dict[str, float], dead: tuple[int, ...] = ()) -> tuple[Any, bool]:
        found = [
            {"Alive": index not in dead, "NodeID": f"{index:056x}", "Resources": resources}
            for index, resources in enumerate(nodes)
        ]
        monkeypatch.setattr(probe.ray, "nodes", lambda: found)
        options, has_gpu = probe._place()
        strategy = options.get("scheduling_strategy")
        return int(strategy.node_id, 16) if strategy else options, has_gpu

    return of


def test_a_worker_is_preferred_to_the_head(place: Any) -> None:
    assert place({**HEAD, "CPU": 64.0}, {"CPU": 1.0}) == (1, False)


def test_a_gpu_is_preferred_to_none(place: Any) -> None:
    assert place(HEAD, {"CPU": 64.0}, {"CPU": 4.0, "GPU": 1.0}) == (2, True)


def test_a_head_that_does_all_the_work_is_looked_at(place: Any) -> None:
    assert place({**HEAD, "CPU": 2.0}) == (0, False)


def test_a_node_that_is_gone_is_not_asked(place: Any) -> None:
    assert place(HEAD, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0}, dead=(1,)) == (2, False)


def test_where_there_is_no_worker_one_is_asked_for(place: Any) -> None:
    """A cluster that grows adds a node for a CPU, and for nothing less."""
    assert place(HEAD) == ({"num_cpus": 1}, False)
