"""The stack, created on a simulated AWS, and what each of its roles may then do there.

The farm's own storage and Ray's own launcher make the calls. The simulation enforces policies on S3
calls; conditions, which it does not judge, are judged by `tests.iam` for the calls that Ray made.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
import yaml
from botocore.client import BaseClient
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from moto.s3.responses import ACTION_MAP
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

import asha_ray
from asha_ray.errors import StorageError
from asha_ray.storage import s3
from asha_ray.storage.s3 import S3Storage
from tests.iam import allows

ROOT = Path(asha_ray.__file__).parents[1]
REGION, ACCOUNT = "eu-central-1", "123456789012"
PARTS = 9 << 20
"""Bytes of a file that is uploaded in parts."""


class Stack(NamedTuple):
    outputs: dict[str, str]
    policies: dict[str, list[dict[str, Any]]]
    """Who -> the documents of all policies that hold for him."""
    roles: dict[str, str]

    @property
    def bucket(self) -> str:
        return f"s3://{self.outputs['BucketName']}"

    def allows(self, who: str, action: str, resource: str, **context: str) -> bool:
        return allows(self.policies[who], action, resource, context)


@pytest.fixture(scope="module")
def aws() -> Iterator[pytest.MonkeyPatch]:
    """A simulated AWS in this process.

    The server of the other tests is a simulation in this process too: it is out of sight, and keeps
    what it has, before and after.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        simulation = mock_aws()
        simulation.start(reset=False)
        yield patch
        simulation.stop(remove_data=False)
        s3._client.cache_clear()


@pytest.fixture(scope="module")
def stack(aws: pytest.MonkeyPatch) -> Stack:
    return create_stack("farm")


def create_stack(name: str, **parameters: str) -> Stack:
    ec2, formation, iam = (boto3.client(name) for name in ("ec2", "cloudformation", "iam"))
    parameters |= {"VpcId": ec2.describe_vpcs()["Vpcs"][0]["VpcId"]}
    with warnings.catch_warnings():
        # It does not make bucket policies and what goes out of a group; those are read elsewhere.
        warnings.filterwarnings("ignore", "Tried to parse AWS")
        formation.create_stack(
            StackName=name,
            TemplateBody=(ROOT / "infra" / "cloudformation.yaml").read_text(),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
    [made] = formation.describe_stacks(StackName=name)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    cluster = parameters.get("ClusterName", "asha-ray")
    roles, policies = {}, {}
    for who in ("head", "worker"):
        profile = iam.get_instance_profile(InstanceProfileName=f"{cluster}-{who}")
        [role] = profile["InstanceProfile"]["Roles"]
        roles[who] = role["Arn"]
        attached = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
        assert not iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        policies[who] = [document_of(policy["PolicyArn"]) for policy in attached]
    for who, output in {"submitter": "SubmitterPolicy", "launcher": "LauncherPolicy"}.items():
        policies[who] = [document_of(outputs[output])]
        # A role that somebody has, with this policy and nothing else.
        trust = {"Version": "2012-10-17", "Statement": []}
        person = iam.create_role(
            RoleName=f"{cluster}-{who}", AssumeRolePolicyDocument=json.dumps(trust)
        )
        iam.attach_role_policy(RoleName=f"{cluster}-{who}", PolicyArn=outputs[output])
        roles[who] = person["Role"]["Arn"]
    return Stack(outputs, policies, roles)


def document_of(arn: str) -> dict[str, Any]:
    iam = boto3.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    assert len(json.dumps(document).replace(" ", "")) <= 6144, "IAM takes no longer ones"
    found: dict[str, Any] = document
    return found


@contextmanager
def acting_as(stack: Stack, who: str) -> Iterator[S3Storage]:
    """The farm's storage with the rights of a role, which hold from here on."""
    sts = boto3.client("sts")
    given = sts.assume_role(RoleArn=stack.roles[who], RoleSessionName="test")["Credentials"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
        patch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
        s3._client.cache_clear()
        yield S3Storage()
    s3._client.cache_clear()


def fill(stack: Stack) -> dict[str, str]:
    """One object of each part of the bucket; name -> uri."""
    keys = {
        "track": "inputs/track.wav",
        "model": "models/m/model.safetensors",
        "checkpoint": "models/.asha/training/m/c",
        "sample": "models/m/samples/1.png",
        "segment": "work/segments/c.mp4",
        "job": "work/jobs/1/job.json",
        "beat": "work/jobs/1/heartbeat.json",
        "tried": "work/doctor/1",
        "sent": "work/inputs/t.wav",
        "video": "videos/v.mp4",
        "record": "videos/v.mp4.json",
        "stray": "elsewhere/x",
    }
    client, bucket = boto3.client("s3"), stack.outputs["BucketName"]
    for key in keys.values():
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    return {name: f"{stack.bucket}/{key}" for name, key in keys.items()}


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except StorageError as error:
        if "access is denied" not in str(error):
            raise
        return True
    return False


# What each role may read, write and delete of what `fill` made; all else is refused.
RIGHTS = {
    "worker": {
        "read": {
            "track",
            "model",
            "checkpoint",
            "sample",
            "segment",
            "job",
            "beat",
            "tried",
            "sent",
        }
        | {"video", "record"},
        "write": {
            "model",
            "checkpoint",
            "sample",
            "segment",
            "job",
            "beat",
            "tried",
            "sent",
            "video",
            "record",
        },
        "delete": {"checkpoint", "sample", "segment", "job", "beat", "tried", "sent", "record"},
    },
    "submitter": {
        "read": {
            "track",
            "model",
            "checkpoint",
            "sample",
            "segment",
            "job",
            "beat",
            "tried",
            "sent",
        }
        | {"video", "record"},
        "write": {"job", "beat", "tried", "sent"},
        "delete": {"job", "tried"},
    },
    "launcher": {"read": set(), "write": set(), "delete": set()},
}
RIGHTS["head"] = RIGHTS["worker"]


@pytest.mark.parametrize("who", RIGHTS)
def test_each_role_reads_writes_and_deletes_what_it_must_and_no_more(
    stack: Stack, who: str
) -> None:
    objects = fill(stack)

    @set_initial_no_auth_action_count(1)  # to assume the role
    def find() -> dict[str, set[str]]:
        with acting_as(stack, who) as storage:
            calls: dict[str, Callable[[str], Any]] = {
                "read": storage.read,
                "write": lambda uri: storage.write(uri, b"y"),
                "delete": storage.delete,
            }
            return {
                name: {key for key, uri in objects.items() if not refused(lambda: call(uri))}  # noqa: B023
                for name, call in calls.items()
            }

    assert find() == RIGHTS[who]


def test_a_worker_does_all_that_storage_does(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What S3 asks for at HEAD of a bucket; the simulation has a right for it that there is not.
    monkeypatch.setitem(ACTION_MAP["BUCKET"]["HEAD"], "DEFAULT", "ListBucket")
    fill(stack)
    video = tmp_path / "v.mp4"
    video.write_bytes(b"v" * PARTS)
    left = {"Bucket": stack.outputs["BucketName"], "Key": "work/segments/left.mp4"}
    boto3.client("s3").create_multipart_upload(**left)

    @set_initial_no_auth_action_count(1)
    def work() -> None:
        with acting_as(stack, "worker") as storage:
            output = f"{stack.bucket}/videos/show.mp4"
            storage.check_writable(output)
            storage.upload(video, output)
            assert storage.size(output) == PARTS
            assert storage.version(output)
            storage.download(output, tmp_path / "back.mp4")
            # Nothing is there, and S3 says so instead of "forbidden".
            assert storage.size(f"{stack.bucket}/work/none") is None
            [segment] = storage.list(f"{stack.bucket}/work/segments")
            assert segment.uri.endswith("c.mp4")
            [unfinished] = storage.unfinished(f"{stack.bucket}/work")
            storage.discard(unfinished)
            assert list(storage.unfinished(f"{stack.bucket}/work")) == []

    work()
    assert (tmp_path / "back.mp4").stat().st_size == PARTS


def arn(stack: Stack, key: str) -> str:
    return f"arn:aws:s3:::{stack.outputs['BucketName']}/{key}"


def test_nobody_changes_the_bucket_or_reads_old_versions(stack: Stack) -> None:
    bucket = f"arn:aws:s3:::{stack.outputs['BucketName']}"
    for who in RIGHTS:
        assert not stack.allows(who, "s3:GetObject", "arn:aws:s3:::another/inputs/x")
        for action in ("PutBucketPolicy", "PutLifecycleConfiguration", "DeleteBucket"):
            assert not stack.allows(who, f"s3:{action}", bucket)
        for action in ("DeleteObjectVersion", "GetObjectVersion", "PutObjectAcl"):
            assert not stack.allows(who, f"s3:{action}", arn(stack, "work/x"))


def test_a_cluster_that_only_renders_writes_no_model(aws: pytest.MonkeyPatch) -> None:
    stack = create_stack("rendering", ClusterName="rendering", Training="no")
    for who in ("head", "worker"):
        assert stack.allows(who, "s3:GetObject", arn(stack, "models/m/config.json"))
        for key in ("models/m/config.json", "models/.asha/training/m/c"):
            for action in ("s3:PutObject", "s3:DeleteObject"):
                assert not stack.allows(who, action, arn(stack, key))


def test_a_training_keeps_house_beside_its_model(stack: Stack) -> None:
    for key in ("models/.asha/training/m/", "models/artist/.asha/training/m/checkpoint/x"):
        for action in ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
            allowed = stack.allows("worker", action, arn(stack, key))
            assert allowed, (action, key)
    assert not stack.allows("worker", "s3:DeleteObject", arn(stack, "models/m/model.safetensors"))


@pytest.mark.parametrize("cidr", ["", "192.0.2.0/24"])
def test_the_group_is_open_to_itself_and_to_whom_is_named(
    aws: pytest.MonkeyPatch, cidr: str
) -> None:
    name = f"net{len(cidr)}"
    made = create_stack(name, ClusterName=name, SshCidr=cidr).outputs["SecurityGroup"]
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=[made])["SecurityGroups"]
    rules = {
        "port": [rule.get("FromPort") for rule in group["IpPermissions"]],
        "networks": [net["CidrIp"] for rule in group["IpPermissions"] for net in rule["IpRanges"]],
        "groups": [
            pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]
        ],
    }
    named = {"port": [22], "networks": [cidr]} if cidr else {"port": [], "networks": []}
    assert rules["groups"] == [made]
    assert rules["networks"] == named["networks"]
    assert [port for port in rules["port"] if port is not None] == named["port"]


class Calls:
    """What is called of EC2 from here on, and whether a role may call it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        real = BaseClient._make_api_call

        def note(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            self.made.append((operation, parameters))
            return real(client, operation, parameters)

        patch.setattr(BaseClient, "_make_api_call", note)

    def refused_to(self, stack: Stack, who: str) -> list[tuple[str, str]]:
        """Calls so far that a role may not make, as action and resource; forgets them."""
        made, self.made = self.made, []
        questions = {
            question
            for operation, parameters in made
            for question in asked(operation, parameters, self._tags(parameters))
        }
        self.made = []  # but not what was asked just now
        return [
            (action, resource)
            for action, resource, context in questions
            if not stack.allows(who, action, resource, **dict(context))
        ]

    @staticmethod
    def _tags(parameters: dict[str, Any]) -> dict[str, str]:
        """Tags of the machine that a call is about."""
        machines = parameters.get("InstanceIds", parameters.get("Resources"))
        if not machines or not machines[0].startswith("i-"):
            return {}
        answer = boto3.client("ec2").describe_instances(InstanceIds=machines)
        [machine] = answer["Reservations"][0]["Instances"]
        return {tag["Key"]: tag["Value"] for tag in machine["Tags"]}


Question = tuple[str, str, tuple[tuple[str, str], ...]]


def asked(operation: str, parameters: dict[str, Any], tags: dict[str, str]) -> set[Question]:
    """What IAM asks of a call: action, resource and context, of each resource that it touches."""
    here = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
    machine = f"{here}:instance/i-1"
    held = {f"ec2:ResourceTag/{key}": value for key, value in tags.items()}
    if operation == "RunInstances":
        [named] = parameters["TagSpecifications"]
        given = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in named["Tags"]}
        profile = parameters["IamInstanceProfile"]["Name"]
        given["ec2:InstanceProfile"] = f"arn:aws:iam::{ACCOUNT}:instance-profile/{profile}"
        parts = [f"arn:aws:ec2:{REGION}::{kind}/x-1" for kind in ("image", "snapshot")]
        kinds = ["network-interface", "volume", "subnet"]
        if "InstanceMarketOptions" in parameters:
            kinds.append("spot-instances-request")
        parts += [f"{here}:{kind}/x-1" for kind in kinds]
        parts += [f"{here}:security-group/{group}" for group in parameters["SecurityGroupIds"]]
        parts += [f"{here}:key-pair/{parameters['KeyName']}"]
        image = parameters["ImageId"].removeprefix("resolve:ssm:")
        [role] = boto3.client("iam").get_instance_profile(InstanceProfileName=profile)[
            "InstanceProfile"
        ]["Roles"]
        return {
            ("ec2:RunInstances", machine, tuple(given.items())),
            ("ec2:CreateTags", machine, (("ec2:CreateAction", "RunInstances"), *given.items())),
            ("iam:PassRole", role["Arn"], (("iam:PassedToService", "ec2.amazonaws.com"),)),
            ("ssm:GetParameters", f"arn:aws:ssm:{REGION}::parameter{image}", ()),
            *(("ec2:RunInstances", part, ()) for part in parts),
        }
    if operation == "CreateTags":
        held |= {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in parameters["Tags"]}
    elif operation == "CreateKeyPair":
        machine = f"{here}:key-pair/{parameters['KeyName']}"
    elif operation.startswith("Describe"):
        machine = "*"
    return {(f"ec2:{operation}", machine, tuple(held.items()))}


@pytest.fixture
def calls(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
    return Calls(monkeypatch)


class Cluster(NamedTuple):
    config: dict[str, Any]
    """cluster.yaml, edited as it tells people to, as `ray up` completes it."""
    calls: list[tuple[str, dict[str, Any]]]
    """What it called for that."""


def types_of_cluster(region: str, credentials: object = None) -> list[Any]:
    text = (ROOT / "cluster.yaml").read_text()
    names = re.findall(r"^ *InstanceType: (\S+)$", text, re.MULTILINE)
    answer = boto3.client("ec2", region).describe_instance_types(InstanceTypes=names)
    return list(answer["InstanceTypes"])


@pytest.fixture(scope="module")
def cluster(
    stack: Stack, aws: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Cluster:
    # The launcher keeps the key that it makes at home.
    aws.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    text = (ROOT / "cluster.yaml").read_text()
    text = text.replace("sg-00000000000000000", stack.outputs["SecurityGroup"])
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        # Ray asks for all types that there are, which takes the simulation ten seconds.
        patch.setattr(node_provider, "list_ec2_instances", types_of_cluster)
        config = AWSNodeProvider.fillout_available_node_types_resources(
            prepare_config(yaml.safe_load(text))
        )
        validate_config(config)
        return Cluster(bootstrap_aws(config), calls.made)


def start(config: dict[str, Any], kind: str) -> tuple[AWSNodeProvider, str]:
    """Launch one machine of a type, with the tags that Ray gives it."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    tags = {
        TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{kind}",
        TAG_RAY_NODE_KIND: NODE_KIND_HEAD if kind == "head" else NODE_KIND_WORKER,
        TAG_RAY_NODE_STATUS: "uninitialized",
        TAG_RAY_LAUNCH_CONFIG: "hash",
        TAG_RAY_USER_NODE_TYPE: kind,
    }
    node_config = config["available_node_types"][kind]["node_config"]
    [machine] = provider.create_node(node_config, tags, 1)
    return provider, machine


def test_ray_completes_cluster_yaml_from_the_stack(stack: Stack, cluster: Cluster) -> None:
    kinds = cluster.config["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0, "AWS says eight, cluster.yaml none"
    assert not kinds["head"]["resources"].get("GPU")
    for name in ("spot", "on-demand"):
        resources = kinds[name]["resources"]
        assert (resources["CPU"], resources["GPU"]) == (8, 1)
    for kind in kinds.values():
        assert kind["node_config"]["SecurityGroupIds"] == [stack.outputs["SecurityGroup"]]
        assert len(kind["node_config"]["SubnetIds"]) == 3, "one for each zone"
    assert "CreateSecurityGroup" not in dict(cluster.calls)
    key = Path(cluster.config["auth"]["ssh_private_key"])
    assert (key.name, key.stat().st_mode & 0o777) == ("asha-ray.pem", 0o600)


def test_the_launcher_may_do_what_ray_up_and_down_do(
    stack: Stack, cluster: Cluster, calls: Calls
) -> None:
    calls.made = list(cluster.calls)
    provider, head = start(cluster.config, "head")
    assert head in provider.non_terminated_nodes({})
    provider.set_node_tags(head, {TAG_RAY_NODE_STATUS: "up-to-date"})
    provider.terminate_nodes([head])
    assert calls.refused_to(stack, "launcher") == []


@pytest.mark.parametrize("kind", ["spot", "on-demand"])
def test_the_head_may_do_what_the_autoscaler_does(
    stack: Stack, cluster: Cluster, calls: Calls, kind: str
) -> None:
    provider, machine = start(cluster.config, kind)
    assert machine in provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
    provider.set_node_tags(machine, {TAG_RAY_NODE_STATUS: "up-to-date"})
    provider.terminate_nodes([machine])
    assert {name for name, _ in calls.made} == {
        "RunInstances",
        "CreateTags",
        "DescribeInstances",
        "TerminateInstances",
    }
    assert calls.refused_to(stack, "head") == []


def test_the_head_starts_and_ends_nothing_else(
    stack: Stack, cluster: Cluster, calls: Calls
) -> None:
    config = cluster.config
    worker = config["available_node_types"]["spot"]["node_config"]
    mine = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1"
    network = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    [other] = boto3.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [network]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"]
    for plant in (
        {"IamInstanceProfile": {"Name": "asha-ray-head"}},
        {"SecurityGroupIds": [other["GroupId"]]},
    ):
        calls.made = []
        changed = {**config, "available_node_types": {"spot": {"node_config": worker | plant}}}
        start(changed, "spot")
        assert calls.refused_to(stack, "head"), plant
    calls.made = []
    start({**config, "cluster_name": "somebody-elses"}, "spot")
    assert ("ec2:RunInstances", mine) in calls.refused_to(stack, "head")
    provider, head = start(config, "head")
    calls.made = []
    provider.terminate_nodes([head])
    assert calls.refused_to(stack, "head") == [("ec2:TerminateInstances", mine)]
    # Nor does it make another machine its own by naming it so.
    held = {"ec2:ResourceTag/ray-cluster-name": "asha-ray"}
    named = {"aws:RequestTag/ray-node-type": "worker"}
    assert stack.allows("head", "ec2:CreateTags", mine, **held)
    assert not stack.allows("head", "ec2:CreateTags", mine, **held, **named)
    assert not stack.allows("head", "ec2:CreateTags", mine, **named)


def test_workers_and_submitters_have_no_machines(stack: Stack) -> None:
    mine = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-1"
    head = {"ssm:resourceTag/ray-cluster-name": "asha-ray", "ssm:resourceTag/ray-node-type": "head"}
    for who in ("worker", "submitter"):
        for action in ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"):
            assert not stack.allows(who, action, mine, **head)
        for role in stack.roles.values():
            context = {"iam:PassedToService": "ec2.amazonaws.com"}
            assert not stack.allows(who, "iam:PassRole", role, **context)
    documents = f"arn:aws:ssm:{REGION}::document"
    assert stack.allows("submitter", "ssm:StartSession", mine, **head)
    assert not stack.allows("submitter", "ssm:StartSession", mine)
    for document, allowed in {
        "AWS-StartPortForwardingSession": True,
        "AWS-StartSSHSession": False,
        "SSM-SessionManagerRunShell": False,
    }.items():
        found = stack.allows("submitter", "ssm:StartSession", f"{documents}/{document}")
        assert found is allowed, document
