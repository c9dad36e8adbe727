"""How a cluster is shared: what must hold of any jobs on any cluster, and a few cases by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asha_ray.farm.on_ray.fair import FORGET_S, SETTLE_S, Demand, Nodes, ShareBoard, rooms, shares

TOLERANCE = 1e-4
CPU = {"CPU": 1.0}
FOUR = [({"CPU": 2}, 2)]


def wants(workers: int, priority: int = 0, **takes: float) -> Demand:
    return Demand(priority, workers, takes or CPU)


@pytest.mark.parametrize(
    ("demands", "total", "expected"),
    [
        pytest.param([wants(9), wants(9)], {"CPU": 8}, [4, 4], id="two halves"),
        pytest.param([wants(9), wants(9), wants(9)], {"CPU": 8}, [3, 3, 2], id="first come"),
        pytest.param([wants(9), wants(2), wants(9)], {"CPU": 8}, [3, 2, 3], id="a small wish"),
        pytest.param([wants(9), wants(3, 5)], {"CPU": 8}, [5, 3], id="a preview"),
        pytest.param([wants(9), wants(9, 5)], {"CPU": 8}, [0, 8], id="all for the higher"),
        pytest.param([wants(9, 5), wants(9), wants(9)], {"CPU": 15}, [9, 3, 3], id="the rest"),
        pytest.param([wants(9), wants(9, CPU=3.0)], {"CPU": 12}, [6, 2], id="by amount"),
        pytest.param(
            [wants(9, CPU=1.0), wants(9, CPU=1.0, GPU=0.5)],
            {"CPU": 8, "GPU": 2},
            [5, 3],
            id="5/8 of the CPUs and 3/4 of the GPUs",
        ),
        pytest.param(
            [wants(20, CPU=1.0), wants(20, CPU=1.0, GPU=1.0)],
            {"CPU": 17, "GPU": 4},
            [13, 4],
            id="who needs no GPU takes what GPUs cannot use",
        ),
        pytest.param([wants(9, CPU=9.0), wants(9)], {"CPU": 8}, [0, 8], id="too large"),
        pytest.param([wants(0), wants(9)], {"CPU": 4}, [0, 4], id="nothing wanted"),
        pytest.param([wants(9, GPU=1 / 3)], {"GPU": 1}, [3], id="thirds"),
        pytest.param([wants(3)], {}, [3], id="nothing is scarce"),
        pytest.param([], {"CPU": 8}, [], id="nobody"),
    ],
)
def test_shares(
    demands: Sequence[Demand], total: Mapping[str, float], expected: Sequence[int]
) -> None:
    assert shares(demands, [(total, 1)]) == expected


@pytest.mark.parametrize(
    ("demands", "nodes", "expected"),
    [
        pytest.param(
            [wants(3, CPU=3.0), wants(3, CPU=3.0)], [({"CPU": 4}, 3)], [2, 1], id="one on a node"
        ),
        pytest.param(
            [wants(9, 1, CPU=3.0), wants(9)], [({"CPU": 4}, 3)], [3, 3], id="beside larger ones"
        ),
        pytest.param(
            [wants(9, 1), wants(9, GPU=1.0, CPU=1.0)],
            [({"CPU": 4, "GPU": 4}, 1), ({"CPU": 9}, 1)],
            [9, 4],
            id="who needs no GPU is not laid beside one",
        ),
    ],
)
def test_shares_on_nodes(
    demands: Sequence[Demand], nodes: Sequence[Nodes], expected: Sequence[int]
) -> None:
    """A share that finds no place would wait, and take a place that another is to have."""
    assert shares(demands, nodes) == expected


AMOUNTS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 7.0])
TAKES = st.fixed_dictionaries({"CPU": AMOUNTS}, optional={"GPU": AMOUNTS, "memory": AMOUNTS})
DEMANDS = st.lists(st.builds(Demand, st.integers(-1, 1), st.integers(0, 30), TAKES), max_size=6)
TOTALS = st.fixed_dictionaries(
    {"CPU": st.integers(0, 64)}, optional={"GPU": st.integers(0, 8), "memory": st.integers(1, 64)}
)


def used(demands: Sequence[Demand], given: Sequence[int], kind: str) -> float:
    return sum(
        demand.takes.get(kind, 0) * count for demand, count in zip(demands, given, strict=True)
    )


@given(DEMANDS, TOTALS)
def test_nobody_gets_more_than_is_there_or_than_he_wants(
    demands: list[Demand], total: dict[str, float]
) -> None:
    found = shares(demands, [(total, 1)])
    assert all(0 <= count <= demand.workers for demand, count in zip(demands, found, strict=True))
    for kind, amount in total.items():
        assert used(demands, found, kind) <= amount + TOLERANCE


@given(DEMANDS, TOTALS)
def test_nothing_is_left_that_somebody_could_use(
    demands: list[Demand], total: dict[str, float]
) -> None:
    found = shares(demands, [(total, 1)])
    left = {kind: amount - used(demands, found, kind) for kind, amount in total.items()}
    for demand, count in zip(demands, found, strict=True):
        fits = all(demand.takes.get(kind, 0) <= left[kind] - TOLERANCE for kind in total)
        assert count == demand.workers or not fits


@given(DEMANDS, DEMANDS, TOTALS)
def test_lower_priorities_take_nothing_from_higher_ones(
    demands: list[Demand], others: list[Demand], total: dict[str, float]
) -> None:
    lower = [Demand(-2, other.workers, other.takes) for other in others]
    assert shares([*demands, *lower], [(total, 1)])[: len(demands)] == shares(demands, [(total, 1)])


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 64))
def test_among_equals_nobody_has_two_more_than_one_who_wants_more(
    wishes: list[int], num_cpus: int
) -> None:
    found = shares([wants(wish) for wish in wishes], [({"CPU": num_cpus}, 1)])
    unmet = [count for wish, count in zip(wishes, found, strict=True) if count < wish]
    if unmet:
        assert max(found) - min(unmet) <= 1
    for wish, count in zip(wishes, found, strict=True):
        assert count >= min(wish, num_cpus // len(wishes)), "a small wish is met in full"


@given(DEMANDS, TOTALS)
def test_nobody_is_far_behind_by_the_resource_he_has_most_of(
    demands: list[Demand], total: dict[str, float]
) -> None:
    """Whoever wants one more and could have had it from another equal is not a worker behind."""
    same = [Demand(0, demand.workers, demand.takes) for demand in demands]
    found = shares(same, [(total, 1)])

    def part(demand: Demand, count: int) -> float:
        scarce = [kind for kind in demand.takes if total.get(kind)]
        return max((count * demand.takes[kind] / total[kind] for kind in scarce), default=0.0)

    for demand, count in zip(same, found, strict=True):
        if count == demand.workers or not all(total.get(kind, 1) for kind in demand.takes):
            continue
        for other, others in zip(same, found, strict=True):
            takes_as_much = all(
                other.takes.get(kind, 0) >= demand.takes.get(kind, 0) for kind in total
            )
            if others and takes_as_much:
                assert part(other, others - 1) <= part(demand, count) + TOLERANCE


@given(DEMANDS, TOTALS)
def test_what_was_given_is_given_again_where_no_more_is_wanted(
    demands: list[Demand], total: dict[str, float]
) -> None:
    """Nothing swings: asked for exactly its share, everybody has it."""
    found = shares(demands, [(total, 1)])
    asked = [
        Demand(demand.priority, count, demand.takes)
        for demand, count in zip(demands, found, strict=True)
    ]
    assert shares(asked, [(total, 1)]) == found


ONE, UP_TO_FOUR = [({"CPU": 1}, 1)], [({"CPU": 1}, 4)]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        pytest.param([(9, 0, 1), (2, 5, 0)], [0, 2], id="a long one yields to a preview"),
        pytest.param([(9, 0, 0), (2, 5, 1)], [2, 2], id="which has its due, so both call for more"),
        pytest.param([(9, 0, 0), (9, 0, 1)], [2, 0], id="who came first comes first"),
        pytest.param([(9, 0, 1), (9, 0, 0)], [2, 2], id="and all that may be is shared"),
        pytest.param([(9, 0, 0), (0, 5, 0)], [4, 0], id="who wants nothing lacks nothing"),
    ],
)
def test_what_may_never_come_is_nobodys_due(
    jobs: Sequence[tuple[int, int, int]], expected: Sequence[int]
) -> None:
    """One node is there, and an autoscaler may add three, which it cannot get."""
    demands = [Demand(priority, workers, CPU, has) for workers, priority, has in jobs]
    assert rooms(demands, UP_TO_FOUR, ONE) == expected


@given(DEMANDS, TOTALS)
def test_where_nothing_may_come_who_holds_what_is_of_no_account(
    demands: list[Demand], total: dict[str, float]
) -> None:
    nodes = [(total, 1)]
    assert rooms(demands, nodes, nodes) == shares(demands, nodes)


@given(DEMANDS, TOTALS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_who_keeps_nobody_from_his_due_may_call_for_all_that_may_be(
    demands: list[Demand], total: dict[str, float], times: int, random: Random
) -> None:
    living, nodes = [(total, 1)], [(total, times)]
    due = shares(demands, living)
    having = [
        replace(demand, has=count + random.randint(0, 2))
        for demand, count in zip(demands, due, strict=True)
    ]
    found, all_told = rooms(having, nodes, living), shares(demands, nodes)
    assert found == [max(pair) for pair in zip(due, all_told, strict=True)]


@given(
    jobs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=4),
    num_living=st.integers(0, 6),
    num_more=st.integers(0, 6),
    random=st.randoms(use_true_random=False),
)
def test_however_ray_lays_them_everybody_comes_to_his_due(
    jobs: list[tuple[int, int]], num_living: int, num_more: int, random: Random
) -> None:
    """From whatever they hold, each looks in turn, and what is free goes to any that calls."""
    living, nodes = [({"CPU": 1}, num_living)], [({"CPU": 1}, num_living + num_more)]
    demands = [Demand(priority, workers, CPU) for priority, workers in jobs]
    held, called = [0] * len(jobs), [workers for _, workers in jobs]

    def lay() -> None:
        for _ in range(num_living - sum(held)):
            waiting = [place for place, count in enumerate(called) if count]
            if waiting:
                place = random.choice(waiting)
                held[place] += 1
                called[place] -= 1

    lay()
    for _ in range(6):
        for place in random.sample(range(len(jobs)), len(jobs)):
            having = [replace(each, has=held[at]) for at, each in enumerate(demands)]
            room = rooms(having, nodes, living)[place]
            held[place] = min(held[place], room)
            called[place] = room - held[place]
            lay()
    due = shares(demands, living)
    assert all(count >= least for count, least in zip(held, due, strict=True))
    assert sum(held) == min(num_living, sum(workers for _, workers in jobs))


class TestBoard:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def board(self, clock: list[float]) -> ShareBoard:
        board = ShareBoard(lambda: clock[0])
        clock[0] = SETTLE_S
        return board

    def test_whoever_is_alone_has_all_he_wants(self, board: ShareBoard) -> None:
        """Also what the cluster does not hold: that is what an autoscaler sees."""
        assert board.report("a", wants(100), FOUR, FOUR) == 100

    def test_two_share(self, board: ShareBoard) -> None:
        board.report("a", wants(100), FOUR, FOUR)
        assert board.report("b", wants(100), FOUR, FOUR) == 2
        assert board.report("a", wants(100), FOUR, FOUR) == 2

    def test_a_node_that_never_comes_starves_nobody(self, board: ShareBoard) -> None:
        """The long render has the only node, a preview comes, and no other node does."""
        long, preview = Demand(0, 9, CPU, has=1), Demand(5, 2, CPU)
        assert board.report("long", long, UP_TO_FOUR, ONE) == 9
        assert board.report("preview", preview, UP_TO_FOUR, ONE) == 2
        assert board.report("long", long, UP_TO_FOUR, ONE) == 0, "it ends after its chunk"
        assert board.report("long", replace(long, has=0), UP_TO_FOUR, ONE) == 0
        assert board.report("preview", replace(preview, has=1), UP_TO_FOUR, ONE) == 2
        assert board.report("long", replace(long, has=0), UP_TO_FOUR, ONE) == 2, "for new nodes"

    def test_who_came_first_stays_first(self, board: ShareBoard) -> None:
        for job in ("b", "a", "b", "a"):
            board.report(job, wants(9), [({"CPU": 3}, 1)], [({"CPU": 3}, 1)])
        assert board.report("b", wants(9), [({"CPU": 3}, 1)], [({"CPU": 3}, 1)]) == 2
        assert board.report("a", wants(9), [({"CPU": 3}, 1)], [({"CPU": 3}, 1)]) == 1

    def test_who_is_not_heard_of_is_forgotten(self, board: ShareBoard, clock: list[float]) -> None:
        board.report("dead", wants(9), FOUR, FOUR)
        clock[0] += FORGET_S
        assert board.report("a", wants(9), FOUR, FOUR) == 2
        clock[0] += 0.1
        assert board.report("a", wants(9), FOUR, FOUR) == 9

    def test_who_leaves_is_forgotten_at_once(self, board: ShareBoard) -> None:
        board.report("b", wants(9), FOUR, FOUR)
        board.report("a", wants(9), FOUR, FOUR)
        board.leave("b")
        board.leave("never heard of")
        assert board.report("a", wants(9), FOUR, FOUR) == 9

    def test_a_new_board_says_nothing_until_it_may_have_heard_of_all(self) -> None:
        """One that was lost with its node would tell the first to come back that it is alone."""
        clock = [0.0]
        board = ShareBoard(lambda: clock[0])
        assert board.report("a", wants(9), FOUR, FOUR) is None
        assert board.report("b", wants(9), FOUR, FOUR) is None
        clock[0] = SETTLE_S
        assert board.report("a", wants(9), FOUR, FOUR) == 2
