"""What a cluster holds, and what it could become: arithmetic over nodes and kinds of nodes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from asha_ray.errors import ResourceError

Resources = Mapping[str, float]
"""Amounts by Ray's names: `CPU`, `GPU`, and `memory` in bytes."""

NAMES = {"CPU": "CPUs", "GPU": "GPUs"}
TOLERANCE = 1e-6
PLENTY, MOST_NODES = 1_000_000, 2000
"""More workers, and more nodes, than anybody has."""


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind that an autoscaler may add.

    Attributes:
        resources: of each.
        most: how many of them there may be at once.
    """

    resources: Resources
    most: float = math.inf


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may add to a cluster; the default is a cluster that stays as it is.

    Attributes:
        groups: by kind of node; none where there is no autoscaler, or where it does not say.
        most: nodes of all groups together.
        is_unknown: there is an autoscaler, and nobody can say what it may add.
    """

    groups: tuple[NodeGroup, ...] = ()
    most: float = math.inf
    is_unknown: bool = False

    def __bool__(self) -> bool:
        return self.is_unknown or bool(self.groups)


@dataclass(frozen=True)
class Capacity:
    """A cluster's nodes, and those that it may come to.

    Attributes:
        nodes: resources of those that are alive.
        head: of the head, which no autoscaler takes away.
        growth: what may be added.
    """

    nodes: tuple[Resources, ...]
    head: Resources = field(default_factory=dict)
    growth: Growth = Growth()

    @property
    def places(self) -> list[Resources]:
        """Every kind of node that is there or may come."""
        return [*self.nodes, *(group.resources for group in self.growth.groups if group.most > 0)]

    def now(self, asked: Resources) -> int:
        """How many that ask for so much the nodes hold that are alive, were they empty."""
        return sum(num_fitting(node, asked) for node in self.nodes)

    def at_most(self, asked: Resources) -> int:
        """How many it could come to hold; twice as many as now and one where nobody can say."""
        now = self.now(asked)
        if self.growth.is_unknown:
            return 2 * now + 1
        left, added = self.growth.most, 0.0
        groups = [(num_fitting(group.resources, asked), group) for group in self.growth.groups]
        for each, group in sorted(groups, key=lambda pair: -pair[0]):
            if not each:
                break
            count = min(left, group.most)
            left -= count
            added += each * count
        grown = added + num_fitting(self.head, asked) if self.growth else 0
        return int(min(PLENTY, max(now, grown)))

    def is_known(self, asked: Resources) -> bool:
        """Whether one can say what nodes have that hold this, now or some day."""
        return not self.growth.is_unknown or self.now(asked) > 0

    def largest(self, kind: str) -> float:
        """The most of a kind of resource that one node has, or would have."""
        return max((place.get(kind, 0.0) for place in self.places), default=0.0)

    def kinds_of_nodes(self) -> list[tuple[dict[str, float], int]]:
        """Nodes that it could come to have, as what each has and how many there are.

        Of an autoscaler's kinds, those come first that have most; where nobody can say what it may
        add, as much again as there is.
        """
        if not self.growth.groups:
            doubled = 2 if self.growth.is_unknown else 1
            return _counted(self.nodes, doubled)
        left, found = min(MOST_NODES, self.growth.most), [(_plain(self.head), 1)]
        by_size = sorted(self.growth.groups, key=lambda group: -sum(group.resources.values()))
        for group in by_size:
            count = int(min(left, group.most))
            left -= count
            found.append((dict(group.resources), count))
        num_grown = sum(count for _, count in found)
        return found if num_grown >= len(self.nodes) else _counted(self.nodes, 1)

    def living_nodes(self) -> list[tuple[dict[str, float], int]]:
        """Nodes that are alive, as what each has and how many there are."""
        return _counted(self.nodes, 1)

    def total(self) -> dict[str, float]:
        """All that it could come to have; where nobody can say, twice what it has."""
        kinds = {kind for place in self.places for kind in place}
        now = {kind: sum(node.get(kind, 0.0) for node in self.nodes) for kind in kinds}
        if self.growth.is_unknown:
            return {kind: 2 * amount for kind, amount in now.items()}
        return {kind: max(now[kind], self._grown(kind)) for kind in kinds}

    def _grown(self, kind: str) -> float:
        left, amount = self.growth.most, self.head.get(kind, 0.0)
        for group in sorted(self.growth.groups, key=lambda group: -group.resources.get(kind, 0.0)):
            if group.resources.get(kind, 0.0) > 0:
                count = min(left, group.most)
                left -= count
                amount += count * group.resources[kind]
        return amount

    def require(self, asked: Resources, doing: str, remedy: str) -> None:
        """Refuse what no node holds, and none that may come would.

        Args:
            asked: what one task or worker asks for.
            doing: what it is for.
            remedy: what a person may do beside adding a larger node.

        Raises:
            ResourceError: with what was asked for, and what the largest node has.
        """
        if self.growth.is_unknown or any(num_fitting(place, asked) for place in self.places):
            return
        nearest = max(self.places, key=lambda place: _nearness(place, asked), default={})
        has = told({kind: nearest.get(kind, 0.0) for kind in asked})
        nor = ", and its autoscaler may add none" if self.growth else ""
        raise ResourceError(
            f"{doing}: it asks for {told(asked)}, and this cluster has no node that can hold it"
            f"{nor}; the largest has {has}; {remedy}, or add a larger node"
        )


def _counted(nodes: Iterable[Resources], times: int) -> list[tuple[dict[str, float], int]]:
    counts = Counter(tuple(sorted(_plain(node).items())) for node in nodes)
    return [(dict(node), count * times) for node, count in counts.items()]


def _plain(node: Resources) -> dict[str, float]:
    """Without Ray's own marks, such as a node's name."""
    return {kind: node[kind] for kind in node if not kind.startswith("node:")}


def num_fitting(node: Resources, asked: Resources) -> int:
    """How many that ask for so much an empty node holds; a share of a GPU lies on one GPU."""
    counts = [
        int(node.get(kind, 0.0)) * math.floor(1 / amount + TOLERANCE)
        if kind == "GPU" and amount < 1
        else math.floor(node.get(kind, 0.0) / amount + TOLERANCE)
        for kind, amount in asked.items()
        if amount > 0
    ]
    return min(counts, default=PLENTY)


def with_memory(capacity: Capacity, asked: Resources, needed_bytes: float) -> dict[str, float]:
    """The same with memory, as far as Ray can place it.

    An autoscaler adds no node for who asks for memory that its kinds of nodes do not declare, so
    there nothing is asked. Nor is more asked than the largest node declares, unless it is far more:
    a node declares what was free when Ray started there, and figures of need are on the safe side.
    """
    places = [place for place in capacity.places if num_fitting(place, asked)]
    if not places or capacity.growth.is_unknown or any("memory" not in place for place in places):
        return dict(asked)
    largest = max(place["memory"] for place in places)
    fits = needed_bytes * SURELY_NEEDED <= largest
    return {**asked, "memory": float(int(min(needed_bytes, largest) if fits else needed_bytes))}


SURELY_NEEDED = 0.7
"""What of an estimate of memory is needed in any case."""


def told(resources: Resources) -> str:
    """Resources in words: `7 CPUs, 0.5 GPUs and 12.3 GB of memory`."""
    words = [
        f"{amount / 1e9:.1f} GB of memory"
        if kind == "memory"
        else f"{amount:g} {NAMES.get(kind, kind) if amount != 1 else kind}"
        for kind, amount in resources.items()
    ]
    return _listed(words)


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _nearness(place: Resources, asked: Resources) -> tuple[float, float]:
    parts = [min(1.0, place.get(kind, 0.0) / amount) for kind, amount in asked.items() if amount]
    return min(parts, default=1.0), sum(parts)
