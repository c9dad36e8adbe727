"""Who may have how much of a cluster that several jobs want: pure policy.

Jobs of a higher priority come first and leave the rest to the others. Among equals it is dominant
resource fairness (Ghodsi et al., NSDI 2011): a job's share is what it has of the resource of which
it has most, and the next worker goes to the job whose share is smallest. So small wishes are met in
full, and what one does not want the others share. Shares hang on wishes and on the cluster alone,
never on who holds what at the moment: nothing can swing to and fro.

Where an autoscaler may add nodes there are two shares: of the nodes that are there, and of all that
may be. The first is everybody's due. What the second allows beyond it calls for nodes, which may
never come, and so it is only for who keeps nobody from his due meanwhile.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SETTLE_S = 5.0
"""A board that is younger has not heard of everybody, and says nothing."""
FORGET_S = 15.0
"""Who was not heard of for so long wants nothing any more."""
TOLERANCE = 1e-6

Nodes = tuple[Mapping[str, float], int]
"""What nodes of one kind have each, by Ray's names, and how many there are."""


@dataclass(frozen=True)
class Demand:
    """What a job wants of a cluster.

    Attributes:
        priority: who has a higher one comes first.
        workers: how many it has work for.
        takes: what each of them takes, by Ray's names; all kinds of the cluster that it needs.
        has: how many are at work, or could be.
    """

    priority: int
    workers: int
    takes: Mapping[str, float]
    has: int = 0


def rooms(demands: Sequence[Demand], nodes: Sequence[Nodes], living: Sequence[Nodes]) -> list[int]:
    """How many workers each job should have or call for at the moment.

    A share of the nodes that are there, for as long as another lacks something of his: whoever has
    more gives it back, and nobody's calls for more may take what becomes free. Else as much as of
    all nodes that may be.

    Args:
        demands: of all jobs, as in `shares`.
        nodes: that the cluster could come to have.
        living: that it has.
    """
    due, all_told = shares(demands, living), shares(demands, nodes)
    lacking = {place for place, each in enumerate(demands) if each.has < due[place]}
    return [
        due[place] if lacking - {place} else max(due[place], all_told[place])
        for place in range(len(demands))
    ]


def shares(demands: Sequence[Demand], nodes: Sequence[Nodes]) -> list[int]:
    """How many workers each job may have.

    Workers are laid on nodes, the next on the first that has room for it, since what is left on
    many nodes together is of no use to a worker that is larger than it is on any of them.

    Args:
        demands: of all jobs, who came first being first where all else is equal.
        nodes: of the cluster; a kind of resource that none has is not scarce.

    Returns:
        As many as `demands`. No job that wants more fits into what is left.
    """
    total: dict[str, float] = {}
    for resources, count in nodes:
        for kind, amount in resources.items():
            total[kind] = total.get(kind, 0.0) + amount * count
    left = [dict(resources) for resources, count in nodes for _ in range(count)]
    given = [0] * len(demands)
    for priority in sorted({demand.priority for demand in demands}, reverse=True):
        places = [place for place, each in enumerate(demands) if each.priority == priority]
        scarce = {place: _scarce(demands[place].takes, total) for place in places}
        room = {place: iter(_order(left, scarce[place])) for place in places}
        here = {place: next(room[place], None) for place in places}
        queue = [(0.0, place) for place in places if demands[place].workers > 0]
        while queue:
            _, place = heapq.heappop(queue)
            takes = scarce[place]
            # What is left on a node only shrinks, so none is looked at again.
            while (node := here[place]) is not None and not _fits(takes, node):
                here[place] = next(room[place], None)
            if node is None:
                continue
            for kind, amount in takes.items():
                node[kind] -= amount
            given[place] += 1
            if given[place] < demands[place].workers:
                # From the count anew: a sum of shares would drift, and break ties by its drift.
                part = max((amount / total[kind] for kind, amount in takes.items()), default=0.0)
                heapq.heappush(queue, (given[place] * part, place))
    return given


def _scarce(takes: Mapping[str, float], total: Mapping[str, float]) -> dict[str, float]:
    return {kind: amount for kind, amount in takes.items() if kind in total and amount > 0}


def _order(left: list[dict[str, float]], takes: Mapping[str, float]) -> list[dict[str, float]]:
    """Nodes as Ray takes them: who needs no GPU goes first where there is none."""
    return left if "GPU" in takes else sorted(left, key=lambda node: node.get("GPU", 0.0) > 0)


def _fits(takes: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(amount <= node.get(kind, 0.0) + TOLERANCE for kind, amount in takes.items())


class ShareBoard:
    """Where jobs say what they want and read what they may have. It forgets who is not heard of.

    It holds nothing that is not said again every few seconds, so it may be lost and begin anew.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._demands: dict[str, Demand] = {}
        self._heard: dict[str, float] = {}

    def report(
        self, job: str, demand: Demand, nodes: Sequence[Nodes], living: Sequence[Nodes]
    ) -> int | None:
        """A job's room; all it wants where it is alone, None where too few were heard yet.

        Args:
            job: who says it.
            demand: what it wants now.
            nodes: that the cluster could come to have, as the job sees it.
            living: that it has.
        """
        now = self._clock()
        self._demands[job] = demand
        self._heard[job] = now
        for silent in [name for name, heard in self._heard.items() if now - heard > FORGET_S]:
            self.leave(silent)
        if now - self._began < SETTLE_S:
            return None
        if len(self._demands) == 1:
            return demand.workers
        given = rooms(list(self._demands.values()), nodes, living)
        return given[list(self._demands).index(job)]

    def leave(self, job: str) -> None:
        """A job wants nothing any more."""
        self._demands.pop(job, None)
        self._heard.pop(job, None)
