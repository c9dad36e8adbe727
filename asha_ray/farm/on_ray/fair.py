"""Who may have how much of a cluster that several jobs want: pure policy.

Jobs of a higher priority come first and leave the rest to the others. Among equals it is dominant
resource fairness (Ghodsi et al., NSDI 2011): a job's share is what it has of the resource of which
it has most, and the next worker goes to the job whose share is smallest. So small wishes are met in
full, and what one does not want the others share. Shares hang on wishes and on the cluster alone,
never on who holds what at the moment: nothing can swing to and fro.
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


@dataclass(frozen=True)
class Demand:
    """What a job wants of a cluster.

    Attributes:
        priority: who has a higher one comes first.
        workers: how many it has work for.
        takes: what each of them takes, by Ray's names; all kinds of the cluster that it needs.
    """

    priority: int
    workers: int
    takes: Mapping[str, float]


def shares(demands: Sequence[Demand], total: Mapping[str, float]) -> list[int]:
    """How many workers each job may have.

    Args:
        demands: of all jobs, who came first being first where all else is equal.
        total: the cluster's resources; a kind that is not in it is not scarce.

    Returns:
        As many as `demands`. No job that wants more fits into what is left.
    """
    given = [0] * len(demands)
    left = dict(total)
    for priority in sorted({demand.priority for demand in demands}, reverse=True):
        queue = [
            (0.0, place)
            for place, demand in enumerate(demands)
            if demand.priority == priority and demand.workers > 0
        ]
        while queue:
            share, place = heapq.heappop(queue)
            takes = demands[place].takes
            scarce = {kind: amount for kind, amount in takes.items() if kind in left and amount > 0}
            if any(amount > left[kind] + TOLERANCE for kind, amount in scarce.items()):
                continue  # what is left only shrinks
            for kind, amount in scarce.items():
                left[kind] -= amount
            given[place] += 1
            if given[place] < demands[place].workers:
                # From the count anew: a sum of shares would drift, and break ties by its drift.
                share = given[place] * _largest_part(scarce, total)
                heapq.heappush(queue, (share, place))
    return given


def _largest_part(takes: Mapping[str, float], total: Mapping[str, float]) -> float:
    return max((amount / total[kind] for kind, amount in takes.items()), default=0.0)


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

    def report(self, job: str, demand: Demand, total: Mapping[str, float]) -> int | None:
        """A job's share; all it wants where it is alone, None where too few were heard yet.

        Args:
            job: who says it.
            demand: what it wants now.
            total: what the cluster could come to have, as the job sees it.
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
        given = shares(list(self._demands.values()), total)
        return given[list(self._demands).index(job)]

    def leave(self, job: str) -> None:
        """A job wants nothing any more."""
        self._demands.pop(job, None)
        self._heard.pop(job, None)
