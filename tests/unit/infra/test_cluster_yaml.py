"""cluster.yaml: what Ray's launcher, its autoscaler and EC2 make of it."""

import functools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from botocore.exceptions import ParamValidationError
from botocore.session import Session
from botocore.validate import validate_parameters
from click import NoSuchOption
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
    CloudResourceMonitor,
)
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent
from ray.scripts.scripts import start

import asha_ray
from tests.unit.infra import INFRA, ROOT

TEXT = (ROOT / "cluster.yaml").read_text()
WORKERS = ("spot", "on-demand")
CHUNK = {"CPU": 7, "GPU": 1}


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


def node_config(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = config["available_node_types"][name]["node_config"]
    return found


def accept(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray makes of a config, as `ray up` reads it."""
    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


@functools.cache
def ec2() -> Any:
    """EC2's own model of its requests."""
    return Session().get_service_model("ec2")


def launch(config: dict[str, Any], name: str, count: int = 1) -> None:
    """Check the request that Ray makes of a node type, as EC2's own model describes it."""
    model = ec2().operation_model("RunInstances").input_shape
    request = {**node_config(config, name), "SubnetId": "subnet-1", "KeyName": "asha-ray"}
    validate_parameters({**request, "MinCount": 1, "MaxCount": count}, model)


def test_ray_takes_it(config: dict[str, Any]) -> None:
    prepared = accept(config)
    assert set(prepared["available_node_types"]) == {"head", *WORKERS}
    assert prepared["head_node_type"] == "head"


PLANTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown field": lambda config: config.update(bucket="b"),
    "unknown field of a type": lambda config: config["available_node_types"]["spot"].update(gpu=1),
    "workers in words": lambda config: config.update(max_workers="four"),
    "half a processor": lambda config: config["available_node_types"]["head"].update(
        resources={"CPU": 0.5}
    ),
    "unknown option of docker": lambda config: config["docker"].update(user="asha"),
    "node id without a proxy": lambda config: config["auth"].pop("ssh_proxy_command"),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_ray_would_refuse_a_mistake(
    config: dict[str, Any], plant: Callable[[dict[str, Any]], Any]
) -> None:
    plant(config)
    with pytest.raises(ValidationError):
        accept(config)


@pytest.mark.parametrize("name", ["head", *WORKERS])
def test_ec2_takes_each_machine(config: dict[str, Any], name: str) -> None:
    launch(config, name)
    node_config(config, name)["BlockDeviceMapping"] = []
    with pytest.raises(ParamValidationError, match="BlockDeviceMapping"):
        launch(config, name)


def test_five_places_to_edit_are_marked_and_are_all(config: dict[str, Any]) -> None:
    assert re.findall(r"# EDIT (\d) of 5: ", TEXT) == list("12345")
    # Whoever follows a mark finds there what it speaks of, and what must be edited is below one.
    parts = re.split(r"# EDIT \d of 5: ", TEXT)[1:]
    for part, held in zip(
        parts, ["region:", "ssh_proxy_command:", "image:", "max_workers:", "sg-0"], strict=True
    ):
        assert held in part
    for placeholder in ("123456789012", "eu-central-1", "sg-0"):
        assert placeholder not in TEXT.partition("# EDIT 1 of 5")[0]
    region = config["provider"]["region"]
    assert set(re.findall(r"\b[a-z]{2}-[a-z]+-\d", TEXT)) == {region}, "one region, everywhere"
    zones = config["provider"]["availability_zone"].split(",")
    assert len(zones) > 1
    assert all(zone[:-1] == region for zone in zones)


def test_no_chunk_lands_on_the_head(config: dict[str, Any]) -> None:
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    start = config["head_start_ray_commands"][-1].split()
    assert {"--head", "--num-cpus=0", "--num-gpus=0"} <= set(start)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_it_shrinks_to_its_head(config: dict[str, Any]) -> None:
    prepared = accept(config)
    for name in WORKERS:
        kind = prepared["available_node_types"][name]
        assert (kind["min_workers"], kind["max_workers"]) == (0, prepared["max_workers"])
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    assert 0 < prepared["idle_timeout_minutes"] <= 10
    assert prepared["provider"]["cache_stopped_nodes"] is False, "stopped machines cost their disks"


def test_spot_and_on_demand_are_the_same_machine(config: dict[str, Any]) -> None:
    spot, on_demand = (node_config(config, name) for name in WORKERS)
    assert spot.pop("InstanceMarketOptions")["MarketType"] == "spot"
    assert spot == on_demand
    assert "InstanceMarketOptions" not in node_config(config, "head")


def test_nothing_is_open(config: dict[str, Any]) -> None:
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][1]
    assert "--dashboard-host=127.0.0.1" in head.split()
    assert config["provider"]["use_internal_ips"] is True
    for name in ("head", *WORKERS):
        machine = node_config(config, name)
        assert machine["SecurityGroupIds"], "without one Ray opens port 22 to the world"
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in machine["BlockDeviceMappings"])
    for command in (head, worker):
        assert "--metrics-export-port=8080" in command.split()


def test_workers_see_their_gpu(config: dict[str, Any]) -> None:
    assert config["docker"]["worker_run_options"] == ["--gpus all"]
    assert "--gpus" not in str(config["docker"]["run_options"]), "the head would not start"


def test_ray_asks_for_a_token_everywhere(config: dict[str, Any]) -> None:
    options = config["docker"]["run_options"]
    [folder] = config["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert f"--env RAY_AUTH_TOKEN_PATH={folder}/token" in options
    # A mounted file would go on being the old one in the container when the token is renewed.
    assert not folder.endswith("token")
    assert "RAY_AUTH_TOKEN=" not in TEXT


def test_it_agrees_with_the_image(config: dict[str, Any]) -> None:
    image = (INFRA / "Dockerfile").read_text()
    mounted = dict(
        option.split()[1].split(":")
        for option in config["docker"]["run_options"]
        if option.startswith("--volume ")
    )
    [made] = [
        command.split()
        for command in config["initialization_commands"]
        if command.startswith("sudo install")
    ]
    assert {"--owner=1000", "--group=1000"} <= set(made)
    assert "USER 1000:1000" in image
    assert set(mounted) <= set(made), "Docker would make the others, for root"
    assert f"XDG_CACHE_HOME={mounted['/var/cache/asha']} " in image
    assert mounted["/var/log/asha-ray"] == "/tmp/ray"
    [folder] = config["file_mounts"]
    assert f"HOME={folder.rpartition('/')[0]} " in image
    command = config["worker_start_ray_commands"][-1]
    assert "drain-when-reclaimed spot" in command
    assert "drain-when-reclaimed /usr/local/bin/" in image
    assert config["docker"]["image"].partition(":")[2] == f"{asha_ray.__version__}-cuda"


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_start_knows_its_options(config: dict[str, Any], role: str) -> None:
    for command in config[f"{role}_start_ray_commands"]:
        words = command.split()
        if words[:2] == ["ray", "start"]:
            start.make_context("ray start", words[2:])
            with pytest.raises(NoSuchOption):
                start.make_context("ray start", [*words[2:], "--num-cpu=0"])
        else:
            assert words[:2] in (["ray", "stop"], ["setsid", "--fork"])


def test_the_token_of_the_readme_is_the_one_that_is_brought(
    config: dict[str, Any], tmp_path: Path
) -> None:
    told = (INFRA / "README.md").read_text()
    [commands] = re.findall(r"```\n(install -d [^`]*secrets[^`]*)```", told)
    script = tmp_path / "make-token"
    script.write_text(f"set -eu\n{commands}\necho $RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH\n")
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):  # a second token takes the place of the first
        made = subprocess.run(
            ["bash", script], env=home, capture_output=True, text=True, check=True
        )
    [brought] = config["file_mounts"].values()
    folder = tmp_path / brought.removeprefix("~/")
    assert made.stdout == f"token {folder}/token\n"
    assert [path.name for path in folder.iterdir()] == ["token"]
    assert (folder.stat().st_mode & 0o777, (folder / "token").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    assert re.fullmatch(r"[0-9a-f]{64}\n", (folder / "token").read_text())


class Autoscaler:
    """Ray's choice of machines, with this file's types as AWS describes them."""

    def __init__(self, config: dict[str, Any]) -> None:
        for name in WORKERS:
            config["available_node_types"][name]["resources"] = {"CPU": 8, "GPU": 1}
        self._config = AutoscalingConfig(config, skip_content_hash=True)
        self._monitor = CloudResourceMonitor()

    def notice(self, name: str, status: int) -> None:
        """A machine of a type that was asked for has become something."""
        event = InstanceUpdateEvent(instance_id="i", instance_type=name, new_instance_status=status)
        self._monitor.notify([event])

    def choose(self, count: int) -> dict[str, int]:
        """What is launched for so many chunks."""
        request = SchedulingRequest(
            node_type_configs=self._config.get_node_type_configs(),
            max_num_nodes=self._config.get_max_num_worker_nodes(),
            resource_requests=[
                ResourceRequestByCount(request=ResourceRequestUtil.make(CHUNK), count=count)
            ],
            disable_launch_config_check=True,
            cloud_resource_availabilities=self._monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=(
                self._monitor.get_recoverable_resource_availabilities()
            ),
        )
        reply = ResourceDemandScheduler(Mock()).schedule(request)
        return {launched.instance_type: launched.count for launched in reply.to_launch}


def test_spot_comes_first_and_no_more_than_allowed(config: dict[str, Any]) -> None:
    autoscaler = Autoscaler(config)
    assert autoscaler.choose(1) == {"spot": 1}
    assert autoscaler.choose(99) == {"spot": config["max_workers"]}


def test_what_it_says_of_spot_that_is_short(config: dict[str, Any]) -> None:
    """If this fails, Ray has learned or unlearned something: say so in cluster.yaml."""
    autoscaler = Autoscaler(config)
    autoscaler.notice("spot", Instance.ALLOCATION_FAILED)
    assert autoscaler.choose(1) == {"spot": 1}, "EC2 refused it, and Ray asks again"
    autoscaler.notice("spot", Instance.ALLOCATION_TIMEOUT)
    assert autoscaler.choose(1) == {"on-demand": 1}, "it was granted, and never joined"


def test_the_remedies_it_names_for_that(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    kinds["spot"]["max_workers"] = 3
    assert Autoscaler(config).choose(99) == {"spot": 3, "on-demand": 1}
    kinds["on-demand"]["priority"] = kinds["spot"]["priority"] + 1
    assert Autoscaler(config).choose(1) == {"on-demand": 1}
