"""KubeRay's manifests: what Kubernetes would refuse, and what Ray's autoscaler reads in them.

Kubernetes' own words for these are the operator's custom resource definitions, of which a copy lies
beside the checkout where there is one; without, those tests skip themselves.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from tests.unit.infra import INFRA, ROOT

DEFINITIONS = ROOT.parent / "shared" / "data" / "kuberay"
FOLDER = INFRA / "kuberay"
Document = dict[str, Any]

needs_definitions = pytest.mark.skipif(
    not DEFINITIONS.is_dir(), reason="KubeRay's definitions are not beside this checkout"
)


def document(name: str) -> Document:
    found: Document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return found


def closed(schema: Any) -> Any:
    """A schema that allows no field it does not name, as Kubernetes does when it is strict."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {name: closed(part) for name, part in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        shut["additionalProperties"] = False
    return shut


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    made = {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for name in ("raycluster", "rayjob"):
        text = (DEFINITIONS / f"ray.io_{name}s.yaml").read_text()
        versions = yaml.load(text, loader)["spec"]["versions"]
        [version] = [version for version in versions if version["name"] == "v1"]
        made[name] = Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))
    return made


@needs_definitions
@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kubernetes_takes_it(validators: dict[str, Draft202012Validator], name: str) -> None:
    manifest = document(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    validators[name].validate(manifest)


def worker(cluster: Document) -> Document:
    found: Document = cluster["workerGroupSpecs"][0]
    return found


def container(group: Document) -> Document:
    found: Document = group["template"]["spec"]["containers"][0]
    return found


PLANTED: dict[str, Callable[[Document], Any]] = {
    "unknown field": lambda cluster: cluster.update(autoscaling=True),
    "unknown field of a group": lambda cluster: worker(cluster).update(gpus=1),
    "unknown field of a container": lambda cluster: container(worker(cluster)).update(gpu=1),
    "a misspelt one deep inside": lambda cluster: container(worker(cluster))[
        "securityContext"
    ].update(runAsNonroot=True),
    "an unknown mode": lambda cluster: cluster["authOptions"].update(mode="password"),
    "replicas in words": lambda cluster: worker(cluster).update(maxReplicas="4"),
    "no upper bound": lambda cluster: worker(cluster).pop("maxReplicas"),
    "a parameter that is no text": lambda cluster: cluster["headGroupSpec"][
        "rayStartParams"
    ].update({"num-cpus": 0}),
    "a container without a name": lambda cluster: container(worker(cluster)).pop("name"),
}


@needs_definitions
@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_kubernetes_would_refuse_a_mistake(
    validators: dict[str, Draft202012Validator], plant: Callable[[Document], Any]
) -> None:
    cluster = document("raycluster")
    # Anchors make one object of what is written in several places.
    cluster = copy.deepcopy(yaml.safe_load(yaml.dump(cluster, Dumper=_Plain)))
    plant(cluster["spec"])
    with pytest.raises(ValidationError):
        validators["raycluster"].validate(cluster)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@needs_definitions
def test_kubernetes_would_refuse_a_mistake_in_a_job(
    validators: dict[str, Draft202012Validator],
) -> None:
    for plant in ({"retries": 3}, {"backoffLimit": "3"}, {"ttlSecondsAfterFinished": None}):
        job = document("rayjob")
        job["spec"].update(plant)
        with pytest.raises(ValidationError):
            validators["rayjob"].validate(job)


def test_a_job_has_the_cluster_of_raycluster() -> None:
    assert document("rayjob")["spec"]["rayClusterSpec"] == document("raycluster")["spec"]


def test_the_autoscaler_reads_a_head_without_processors_and_workers_from_none() -> None:
    cluster = document("raycluster")
    cluster["metadata"]["namespace"] = "asha-ray"
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    head, gpu = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert (head["resources"]["CPU"], head["max_workers"]) == (0, 0)
    assert not head["resources"].get("GPU")
    assert (gpu["min_workers"], gpu["max_workers"], config["max_workers"]) == (0, 4, 4)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (7, 1)
    assert config["idle_timeout_minutes"] == 5
    assert cluster["spec"]["enableInTreeAutoscaling"] is True


def groups() -> list[Document]:
    cluster = document("raycluster")["spec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods() -> list[Document]:
    """Everything that runs, as the parts of a pod that matter."""
    return [
        *(group["template"] for group in groups()),
        document("rayjob")["spec"]["submitterPodTemplate"],
    ]


def test_nothing_runs_as_root_or_can_become_it() -> None:
    allowed = [document("raycluster")["spec"]["autoscalerOptions"]["securityContext"]]
    for pod in pods():
        security = pod["spec"]["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed += [part["securityContext"] for part in pod["spec"]["containers"]]
    for security in allowed:
        assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_nobody_outside_gets_in() -> None:
    cluster = document("raycluster")["spec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]
    base = list(yaml.safe_load_all((FOLDER / "base.yaml").read_text()))
    [policy] = [part["spec"] for part in base if part["kind"] == "NetworkPolicy"]
    label = policy["podSelector"]["matchLabels"]
    for pod in pods():
        assert label.items() <= pod["metadata"]["labels"].items(), "no rule would hold for it"
    sources = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert all("podSelector" in peer or "namespaceSelector" in peer for peer in sources)
    assert not any("ipBlock" in peer for peer in sources)
    whole = [rule for rule in policy["ingress"] if "ports" not in rule]
    assert whole == [{"from": [{"podSelector": {"matchLabels": label}}]}]


def test_accounts_are_there_and_workers_ask_nothing_of_kubernetes() -> None:
    base = list(yaml.safe_load_all((FOLDER / "base.yaml").read_text()))
    accounts = {part["metadata"]["name"]: part for part in base if part["kind"] == "ServiceAccount"}
    head, *workers = (group["template"]["spec"] for group in groups())
    assert {spec["serviceAccountName"] for spec in (head, *workers)} == set(accounts)
    for spec in workers:
        assert spec["automountServiceAccountToken"] is False
        assert accounts[spec["serviceAccountName"]]["automountServiceAccountToken"] is False
    # The autoscaler beside the head makes pods; without a token it could not.
    assert head.get("automountServiceAccountToken", True)
    for account in accounts.values():
        assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]


def test_a_reclaimed_worker_has_time_to_give_its_chunk_back() -> None:
    for group in groups()[1:]:
        command = container(group)["lifecycle"]["preStop"]["exec"]["command"]
        assert command[:2] == ["drain-when-reclaimed", "now"]
        assert int(command[2]) < group["template"]["spec"]["terminationGracePeriodSeconds"] <= 120


def test_every_container_says_what_it_takes() -> None:
    for pod in pods():
        for part in pod["spec"]["containers"]:
            wanted, most = part["resources"]["requests"], part["resources"]["limits"]
            assert {"cpu", "memory"} <= set(wanted)
            assert wanted["memory"] == most["memory"], "whoever takes more than it asked is killed"
    for group in groups():
        spec = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounted = {mount["mountPath"]: mount["name"] for mount in container(group)["volumeMounts"]}
        assert volumes[mounted["/var/cache/asha"]]["emptyDir"]["sizeLimit"]
        assert mounted["/tmp/ray"] in volumes


def test_metrics_are_found() -> None:
    for group in groups():
        port = group["rayStartParams"]["metrics-export-port"]
        noted = group["template"]["metadata"]["annotations"]
        assert noted["prometheus.io/scrape"] == "true"
        assert noted["prometheus.io/port"] == port
        ports = {part["name"]: part["containerPort"] for part in container(group)["ports"]}
        assert ports["metrics"] == int(port)


def test_a_lost_head_is_answered_by_a_new_cluster_that_goes_on() -> None:
    job = document("rayjob")["spec"]
    assert job["backoffLimit"] >= 1
    assert job["shutdownAfterJobFinishes"] is True
    assert 0 < job["ttlSecondsAfterFinished"] <= 3600
    assert "gcsFaultToleranceOptions" not in job["rayClusterSpec"]
    # What is finished is found by the next cluster only where no cluster is.
    command = job["entrypoint"].split()
    assert command[:4] == ["asha-ray", "render", "--config", command[3]]
    assert command[3].startswith("s3://")
    assert "--fresh" not in command
