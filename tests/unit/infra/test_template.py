"""The CloudFormation template as it is written: what lint says of it, its bucket, its network."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.iam import allows
from tests.unit.infra import INFRA, ROOT

PATH = INFRA / "cloudformation.yaml"
BUCKET = "arn:aws:s3:::bucket"


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    from cfnlint.decode import cfn_yaml  # takes a second to import, and only this file wants it

    loaded: dict[str, Any] = cfn_yaml.load(str(PATH))
    return loaded


@pytest.fixture(scope="module")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"]
    return found


def test_lint_finds_one_mistake_where_one_was_made_and_nothing_else(tmp_path: Path) -> None:
    """It takes a second, and would tell of all that is wrong with the template besides."""
    from cfnlint.api import lint_file

    broken = tmp_path / "broken.yaml"
    text = PATH.read_text()
    assert text.count("VersioningConfiguration:") == 1
    broken.write_text(text.replace("VersioningConfiguration:", "Versioning:"))
    assert [problem.rule.id for problem in lint_file(broken)] == ["E3002"]


def test_the_bucket_is_private_encrypted_and_keeps_old_versions(resources: dict[str, Any]) -> None:
    bucket = resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    [ownership] = bucket["OwnershipControls"]["Rules"]
    assert ownership["ObjectOwnership"] == "BucketOwnerEnforced"
    for name in ("Bucket", "Repository"):
        assert resources[name]["DeletionPolicy"] == "Retain", "a stack that goes takes no videos"


def test_the_bucket_expires_what_lifecycle_json_expires(resources: dict[str, Any]) -> None:
    rules = json.loads((INFRA / "lifecycle.json").read_text())["Rules"]
    told = []
    for rule in rules:
        expiration = rule.pop("Expiration", {})
        days = {"ExpirationInDays": expiration.pop("Days")} if "Days" in expiration else {}
        told.append(
            {"Id": rule.pop("ID"), "Prefix": rule.pop("Filter")["Prefix"]}
            | {**rule, **expiration, **days}
        )
    assert resources["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"] == told


def test_nobody_reads_the_bucket_in_clear(resources: dict[str, Any]) -> None:
    document = json.loads(
        json.dumps(resources["BucketPolicy"]["Properties"]["PolicyDocument"])
        .replace('{"Fn::GetAtt": ["Bucket", "Arn"]}', f'"{BUCKET}"')
        .replace('{"Fn::Sub": "${Bucket.Arn}/*"}', f'"{BUCKET}/*"')
    )
    anybody = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    for resource in (BUCKET, f"{BUCKET}/videos/v.mp4"):
        for is_secure in (True, False):
            context = {"aws:SecureTransport": str(is_secure).lower()}
            assert allows([anybody, document], "s3:GetObject", resource, context) is is_secure
    assert document["Statement"][0]["Principal"] == "*"


def test_only_the_group_itself_gets_in(resources: dict[str, Any]) -> None:
    group = resources["SecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in group
    ways_in = {
        name: resource
        for name, resource in resources.items()
        if resource["Type"] == "AWS::EC2::SecurityGroupIngress"
    }
    within = ways_in.pop("WithinGroupIn")["Properties"]
    assert within["SourceSecurityGroupId"] == within["GroupId"]
    [ssh] = ways_in.values()
    assert ssh["Condition"] == "HasSsh", "from nowhere unless it is asked for"
    assert (ssh["Properties"]["FromPort"], ssh["Properties"]["ToPort"]) == (22, 22)
    [out] = group["SecurityGroupEgress"]
    assert (out["FromPort"], out["ToPort"]) == (443, 443)


def test_it_is_called_as_cluster_yaml_calls_it(template: dict[str, Any]) -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    name = template["Parameters"]["ClusterName"]["Default"]
    assert cluster["cluster_name"] == name
    for kind, profile in (("head", "head"), ("spot", "worker"), ("on-demand", "worker")):
        machine = cluster["available_node_types"][kind]["node_config"]
        assert machine["IamInstanceProfile"] == {"Name": f"{name}-{profile}"}
    key = cluster["provider"]["key_pair"]["key_name"]
    assert key.startswith(name), "or the launcher could not make it"
    repository = cluster["docker"]["image"].partition("/")[2].partition(":")[0]
    assert repository == name
