"""What a render's workers ask of a cluster, and how many of them it holds: pure arithmetic."""

from dataclasses import dataclass

from asha_ray.farm.on_ray.capacity import Capacity, Resources, with_memory

MAX_WORKERS_PER_GPU = 4
CORES_PER_ENCODER = 8
DOING = "starting a render worker"
SMALLER = "make smaller pictures"


@dataclass(frozen=True)
class Asked:
    """What each worker is given.

    Attributes:
        cores: that it uses.
        gpus: that it reserves.
    """

    cores: int
    gpus: float = 0.0

    @property
    def resources(self) -> dict[str, float]:
        """By Ray's names: a core less than it uses, for whatever else a node has to do."""
        named = {"CPU": max(1.0, self.cores - 1.0)}
        return {**named, "GPU": self.gpus} if self.gpus else named

    def require(self, capacity: Capacity, memory_bytes: float = 0) -> dict[str, float]:
        """The same with memory, if a node holds it, or one that may come would.

        Raises:
            ResourceError: if not.
        """
        asked = self.resources
        if memory_bytes:
            asked = with_memory(capacity, asked, memory_bytes)
        remedy = "give less --gpus-per-worker, or --device cpu" if self.gpus else SMALLER
        capacity.require(asked, DOING, remedy)
        return asked

    def counted(self, asked: Resources) -> Resources:
        """What decides how many there are: on CPUs alone, all cores that each uses."""
        return asked if self.gpus else {**asked, "CPU": float(self.cores)}


def ask(
    capacity: Capacity, *, on_gpu: bool, gpus_per_worker: float | None, most_cores: int
) -> Asked:
    """What workers should ask for on a cluster.

    Args:
        capacity: the cluster.
        on_gpu: whether they decode on one.
        gpus_per_worker: as a person said.
        most_cores: that are of use to one.
    """
    if not on_gpu and gpus_per_worker is None:
        return Asked(max(1, min(most_cores, int(capacity.largest("CPU")))))
    cores_per_gpu = _cores_per_gpu(capacity)
    gpus = gpus_per_worker or 1.0 / _workers_per_gpu(cores_per_gpu)
    return Asked(max(1, min(most_cores, int(cores_per_gpu * gpus))), gpus)


def _cores_per_gpu(capacity: Capacity) -> float:
    """Of the node that has most for each."""
    places = [place for place in capacity.places if place.get("GPU", 0.0) >= 1]
    return max((place.get("CPU", 0.0) / place["GPU"] for place in places), default=1.0)


def _workers_per_gpu(cores_per_gpu: float) -> int:
    """Workers that share a GPU: one encoder on CPUs cannot keep up with its decoder, so several
    encode consecutive chunks, as many as there are cores for.
    """
    return int(min(MAX_WORKERS_PER_GPU, max(1, cores_per_gpu // CORES_PER_ENCODER)))


def num_workers(
    capacity: Capacity, counted: Resources, *, wanted: int | None, most: int | None
) -> int:
    """How many workers there should be if nobody else used the cluster.

    Args:
        capacity: the cluster.
        counted: what each counts for.
        wanted: as a person said.
        most: that have something to do; while nobody knows, no node is asked for but the first.
    """
    now = max(1, capacity.now(counted))
    if most is None:
        return min(wanted, now) if wanted and capacity.growth else wanted or now
    return min(most, wanted or max(now, capacity.at_most(counted)))
