"""What a bucket may delete by itself: as S3 takes it, and nothing but the work of old renders."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.session import Session
from botocore.validate import validate_parameters

import asha_ray

PATH = Path(asha_ray.__file__).parents[1] / "infra" / "lifecycle.json"
WORK = "work/"
EXPIRATIONS = {"Days", "Date", "ExpiredObjectDeleteMarker"}


@pytest.fixture
def rules() -> list[dict[str, Any]]:
    return json.loads(PATH.read_text())["Rules"]


def below(rules: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rules that hold for a key."""
    return [rule for rule in rules if key.startswith(rule["Filter"]["Prefix"])]


def test_it_is_what_s3_takes(rules: list[dict[str, Any]]) -> None:
    operation = Session().get_service_model("s3").operation_model("PutBucketLifecycleConfiguration")
    request = {"Bucket": "b", "LifecycleConfiguration": {"Rules": rules}}
    validate_parameters(request, operation.input_shape)
    for rule in rules:
        assert len(EXPIRATIONS & set(rule.get("Expiration", {}))) <= 1, "S3 takes one of them"
        assert len(rule["ID"]) <= 255
    assert len({rule["ID"] for rule in rules}) == len(rules)


def test_a_server_keeps_it_as_it_is(bucket: str, rules: list[dict[str, Any]]) -> None:
    client, name = boto3.client("s3"), bucket.split("/")[2]
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    assert client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"] == rules


@pytest.mark.parametrize("key", ["videos/v.mp4", "v.mp4", "workshop/x", "models/work/x", "work"])
def test_nothing_else_ever_expires(rules: list[dict[str, Any]], key: str) -> None:
    [rule] = below(rules, key)
    assert set(rule) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_old_work_goes(rules: list[dict[str, Any]]) -> None:
    held = below(rules, f"{WORK}segments/x.mp4")
    assert all(rule["Status"] == "Enabled" for rule in held)
    assert [rule["Expiration"] for rule in held if "Expiration" in rule] == [
        {"Days": 30},
        {"ExpiredObjectDeleteMarker": True},
    ]
    assert [
        rule["NoncurrentVersionExpiration"]
        for rule in held
        if "NoncurrentVersionExpiration" in rule
    ] == [{"NoncurrentDays": 1}]
    days = [rule.get("AbortIncompleteMultipartUpload", {}) for rule in held]
    assert min(day["DaysAfterInitiation"] for day in days if day) == 1
