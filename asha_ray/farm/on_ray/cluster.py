"""What Ray knows of a cluster's nodes and of those that its autoscaler may add.

Ray has a place for what an autoscaler may add, which its own autoscalers leave empty: they read it
from a file on the head. So that file is looked for, by the command that the autoscaler was started
with. Where neither is there, an autoscaler of the second version at least says that it exists, and
what it cannot help.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError, TaskUnschedulableError
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from asha_ray.errors import ResourceError
from asha_ray.farm.on_ray.capacity import (
    Capacity,
    Growth,
    NodeGroup,
    Resources,
    num_fitting,
    told,
)
from asha_ray.farm.on_ray.ray_map import MAX_RETRIES
from asha_ray.farm.on_ray.runtime import await_head, is_own_ray, require_head, result_of

_LOGGER = logging.getLogger(__name__)

HEAD_MARK = "node:__internal_head__"
MONITOR_MARK = b"AutoscalerMetricsAddress"
"""What every autoscaler leaves in Ray's store when it starts, also one that may add nothing."""
MONITOR, CONFIG, GCS = "monitor.py", "--autoscaling-config=", "--gcs-address="
LOOK_S = 30.0
"""What a task on the head may take to look for the autoscaler's file."""
LOOK_AGAIN_S = 2.0
"""How often one looks whether it is in vain to wait."""
MAX_CONFIG_BYTES = 1 << 20
TIMEOUT_S = 5.0


def read_capacity(growth: Growth) -> Capacity:
    """The cluster as it is now, and as it could become."""
    await_head()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    head: Resources = next((resources for resources in nodes if HEAD_MARK in resources), {})
    return Capacity(tuple(nodes), head, growth)


def require_cpu(capacity: Capacity) -> None:
    """Refuse a cluster that can hold no worker, and will not.

    Raises:
        ResourceError: if it has no CPU at all.
    """
    if capacity.largest("CPU") < 1 and not capacity.growth.is_unknown:
        raise ResourceError("using the Ray cluster: it has no CPU to work on; add a node with some")


def read_growth() -> Growth:
    """What the cluster's autoscaler may add; nothing where there is none."""
    if is_own_ray():
        return Growth()
    await_head()
    reported = ray._private.state.state.get_cluster_config()  # noqa: SLF001 (no public way)
    if reported is not None and reported.node_group_configs:
        return growth_reported(reported)
    if not _internal_kv_get(MONITOR_MARK):
        return Growth()
    address = str(ray.get_runtime_context().gcs_address)
    config = _on_head(find_config, address)
    if config is not None:
        return growth_configured(config)
    return Growth(is_unknown=_autoscaling_state(address).autoscaler_state_version > 0)


def growth_reported(config: autoscaler_pb2.ClusterConfig) -> Growth:
    """What a cluster's configuration in Ray's own store allows."""
    return Growth(
        tuple(
            NodeGroup(
                {kind: float(amount) for kind, amount in group.resources.items()},
                math.inf if group.max_count < 0 else group.max_count,
            )
            for group in config.node_group_configs
        )
    )


def growth_configured(config: Mapping[str, Any]) -> Growth:
    """What an autoscaler's file allows: `available_node_types`, and `max_workers` in all."""
    most = _or_else(config.get("max_workers"), math.inf)
    head = config.get("head_node_type")
    return Growth(
        tuple(
            NodeGroup(dict(kind.get("resources") or {}), _or_else(kind.get("max_workers"), most))
            for name, kind in config.get("available_node_types", {}).items()
            if name != head
        ),
        most,
    )


def _or_else(value: float | None, other: float) -> float:
    return other if value is None else value


def find_config(gcs_address: str) -> dict[str, Any] | None:
    """The file that this machine's autoscaler of a cluster reads, if there is one here."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, yaml.YAMLError, ValueError):
            words = process.cmdline()
            if f"{GCS}{gcs_address}" not in words or not any(MONITOR in word for word in words):
                continue
            paths = [word.removeprefix(CONFIG) for word in words if word.startswith(CONFIG)]
            for path in map(Path, paths):
                if path.stat().st_size <= MAX_CONFIG_BYTES:
                    config = yaml.safe_load(path.read_text())
                    return config if isinstance(config, dict) else None
    return None


def _on_head(look: Callable[[str], Any], address: str) -> Any:
    """What a function finds on the cluster's head: called here where this is it, else in a task."""
    node = head_node()
    if node is None or node == ray.get_runtime_context().get_node_id():
        return look(address)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        return ray.get(
            ray.remote(num_cpus=0, scheduling_strategy=there)(look).remote(address), timeout=LOOK_S
        )
    except RayError as error:
        _LOGGER.info("looking for the autoscaler's file on the head: %s", error)
        return None


def head_node() -> str | None:
    """The head's node, by its id."""
    heads = (
        str(node["NodeID"])
        for node in ray.nodes()
        if node["Alive"] and HEAD_MARK in node["Resources"]
    )
    return next(heads, None)


def holding_node(asked: Resources) -> str | None:
    """A node that is alive and would hold this were it empty, by its id."""
    nodes = (
        str(node["NodeID"])
        for node in ray.nodes()
        if node["Alive"] and num_fitting(node["Resources"], asked)
    )
    return next(nodes, None)


def _autoscaling_state(address: str) -> Any:
    """What an autoscaler of the second version says of itself; empty where there is none."""
    reply = autoscaler_pb2.GetClusterStatusReply()
    client = ray._raylet.GcsClient(address=address)  # noqa: SLF001
    with suppress(RayError, RuntimeError):
        reply.ParseFromString(client.get_cluster_status(timeout_s=TIMEOUT_S))
    return reply.autoscaling_state


def infeasible(state: Any, asked: Resources) -> bool:
    """Whether an autoscaler has said that no node it may add holds this."""
    wanted = {kind: amount for kind, amount in asked.items() if amount}
    return any(
        dict(request.resources_bundle) == wanted for request in state.infeasible_resource_requests
    )


def await_node(
    reference: Any, asked: Resources, growth: Growth, note: Callable[[str], None]
) -> None:
    """Wait until a task is done that no node holds yet, and tell a person so.

    Args:
        reference: of the task.
        asked: what it asks for.
        growth: what the autoscaler may add.
        note: tells a person.

    Raises:
        ResourceError: if the autoscaler says that it can add no node that holds it.
        FarmError: if the cluster's head is gone.
    """
    note(f"waiting for the cluster to add a node: none is there yet that holds {told(asked)}")
    refused = ResourceError(
        f"waiting for a node that holds {told(asked)}: the cluster's autoscaler can add none; ask "
        "for less, or add a larger kind of node"
    )
    while not ray.wait([reference], timeout=LOOK_AGAIN_S)[0]:
        require_head()
        if growth.is_unknown and infeasible(
            _autoscaling_state(str(ray.get_runtime_context().gcs_address)), asked
        ):
            raise refused
    try:
        ray.get(reference)
    except TaskUnschedulableError as error:  # Ray may end at once what no node will hold
        raise refused from error
    except RayError:
        return  # whoever takes the answer hears of it


ON_CPU: Resources = {"CPU": 1.0}
ON_GPU: Resources = {"CPU": 1.0, "GPU": 1.0}


def await_first_node(
    capacity: Capacity, wishes: Sequence[Resources], note: Callable[[str], None]
) -> None:
    """Have a node added where none holds even the least of the wishes, and nobody can say what may.

    What a node of such a cluster has is known only once it is there.

    Args:
        capacity: the cluster.
        wishes: what it should hold, the dearest first; each but the last may be in vain.
        note: tells a person.

    Raises:
        ResourceError: if the autoscaler says that it can add none for the last.
        FarmError: if the cluster's head is gone.
    """
    if capacity.is_known(wishes[-1]):
        return
    for number, wish in enumerate(wishes, 1):
        options = {
            "num_cpus": wish["CPU"],
            "num_gpus": wish.get("GPU", 0),
            "max_retries": MAX_RETRIES,
        }
        reference = ray.remote(**options)(_nothing).remote()
        try:
            await_node(reference, wish, capacity.growth, note)
            result_of(reference)
        except ResourceError as error:
            if number == len(wishes):
                raise
            _LOGGER.info("%s", error)
        else:
            return
        finally:
            with suppress(RayError):  # done, or nobody is to add a node for it any more
                ray.cancel(reference)


def _nothing() -> None:
    """Be done as soon as there is a place for it."""
