"""A driver's side of sharing a cluster: it says what it wants, and hears what it may have.

Nothing hangs on it. Where the board cannot be reached a driver goes on with the share it had, and
with all it wants where it never had one.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asha_ray.errors import AshaError
from asha_ray.farm.on_ray.capacity import Resources
from asha_ray.farm.on_ray.cluster import head_node
from asha_ray.farm.on_ray.fair import Demand, Nodes, ShareBoard
from asha_ray.farm.on_ray.runtime import is_head_there

NAMESPACE, NAME = "asha-ray", "shares-2"
"""Of the board; the number is of what is said to it, so that versions do not mix."""
REPORT_S = 2.0
ANSWER_S = 0.5
"""So long an answer is waited for at once; later ones are read the next time."""
STOP_S = 5.0
LOST_S = 10.0
"""An answer that did not come for so long will not."""


class Share:
    """What one job may have of a cluster.

    Args:
        priority: of the job.
        board: where it asks, as a handle of Ray's; found or made where it is first needed.
    """

    def __init__(self, priority: int, board: Callable[[], Any] | None = None) -> None:
        self._priority, self._find = priority, board or _board
        self._job = secrets.token_hex(8)
        self._board: Any = None
        self._answer: Any = None
        self._asked_at = 0.0
        self._workers: int | None = None
        self._lock = threading.Lock()

    def ask(
        self,
        workers: int,
        takes: Resources,
        nodes: Sequence[Nodes],
        living: Sequence[Nodes],
        has: int = 0,
    ) -> int | None:
        """Say what is wanted, and hear how many workers there may be; None where nobody knows.

        Args:
            workers: that have something to do.
            takes: what each takes.
            nodes: that the cluster could come to have.
            living: that it has.
            has: workers that are at work, or could be.
        """
        with self._lock:
            if is_head_there():
                try:
                    self._ask(Demand(self._priority, workers, dict(takes), has), nodes, living)
                except (RayError, ValueError):  # gone, or about to be made by another just now
                    self._board = self._answer = None
            return self._workers

    def _ask(self, demand: Demand, nodes: Sequence[Nodes], living: Sequence[Nodes]) -> None:
        now, patience_s = time.monotonic(), 0.0
        if self._answer is None:
            if self._board is None:
                self._board = self._find()
            self._answer = self._board.report.remote(self._job, demand, list(nodes), list(living))
            self._asked_at, patience_s = now, ANSWER_S
        if ray.wait([self._answer], timeout=patience_s)[0]:
            answer, self._answer = self._answer, None
            share = ray.get(answer)
            if share is not None:  # a board that began anew has not heard of everybody yet
                self._workers = share
        elif now - self._asked_at > LOST_S:
            self._board = self._answer = None

    def leave(self) -> None:
        """Want nothing any more; returns at once."""
        with self._lock:
            if self._board is not None and is_head_there():
                with suppress(RayError, ValueError):
                    self._board.leave.remote(self._job)
            self._board = self._answer = self._workers = None


def _board() -> Any:
    """The cluster's board, which outlives whoever makes it; on the head, where it keeps no node."""
    node = head_node()
    where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
    options: dict[str, Any] = {
        "name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached",
        "num_cpus": 0, "max_restarts": -1, **where,
    }  # fmt: skip
    return ray.remote(**options)(ShareBoard).remote()


@contextmanager
def repeating(action: Callable[[], Any]) -> Iterator[None]:
    """Do something at once and every two seconds, beside what is done meanwhile."""
    ended = threading.Event()

    def repeat() -> None:
        while True:
            with suppress(AshaError, RayError):  # whoever needs the cluster meets it, too
                action()
            if ended.wait(REPORT_S):
                return

    thread = threading.Thread(target=repeat, name="asha-share", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_S)  # a head that is gone may keep it longer
