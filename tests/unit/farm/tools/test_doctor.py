"""`doctor` looks, reports, and never fails or tells secrets."""

import pytest

from asha_ray.farm.tools import doctor
from asha_ray.farm.tools.doctor import examine


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def finding(name: str) -> doctor.Finding:
    [found] = [item for item in examine() if item.name == name]
    return found


def test_every_finding_says_something() -> None:
    findings = examine()

    names = [item.name for item in findings]
    assert len(set(names)) == len(names)
    assert {"python", "packages", "gpu", "dtypes", "ffmpeg", "memory", "disk", "s3", "ray"} <= set(
        names
    )
    assert all(item.value for item in findings)


def test_ffmpeg_with_all_encoders_needs_nothing() -> None:
    found = finding("ffmpeg")

    assert "libx264" in found.value
    assert "aac" in found.value
    assert found.remedy == ""


def test_an_ffmpeg_without_x264_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.ffmpeg, "encoders", lambda: frozenset({"aac"}))

    assert finding("ffmpeg").remedy == "it lacks libx264"


def test_an_ffmpeg_that_does_not_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> frozenset[str]:
        raise OSError("exec format error")

    monkeypatch.setattr(doctor.ffmpeg, "encoders", fail)

    found = finding("ffmpeg")
    assert "exec format error" in found.value
    assert found.remedy


def test_an_ffmpeg_that_crashes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def fail() -> frozenset[str]:
        raise subprocess.CalledProcessError(-11, ["ffmpeg"])

    monkeypatch.setattr(doctor.ffmpeg, "encoders", fail)

    assert finding("ffmpeg").remedy


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))

    found = finding("packages")
    assert found.value.startswith("numpy ")
    assert found.remedy == "install no-such-package"


def test_credentials_are_found_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("s3").value == "no credentials: only local paths work"

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTELLNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    found = finding("s3")
    assert "credentials from env" in found.value
    assert "AKID" not in str(examine())
    assert "hushhush" not in str(examine())


def test_a_broken_aws_configuration_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")

    found = finding("s3")
    assert "no-such-profile" in found.value
    assert found.remedy


def test_little_disk_space_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10, 9, 1 << 30))

    assert "--work" in finding("disk").remedy


def test_the_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "local" in finding("ray").value

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "10.0.0.1:6379" in finding("ray").value
