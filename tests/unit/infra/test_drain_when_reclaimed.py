"""What a node does when its machine is about to be taken away, with a Ray and an EC2 of scripts."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.infra import INFRA

SCRIPT = INFRA / "node" / "drain-when-reclaimed"
NODE, GCS = "ab12" * 7, "10.0.0.1:6379"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder of commands, of which `ray` and `sleep` write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write(folder / "ray", f'echo "ray $*" >>{tmp_path}/calls; rm -rf {tmp_path}/proc')
    write(folder / "sleep", f'echo "sleep $*" >>{tmp_path}/calls')
    return folder


def write(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path: Path, commands: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, raylet: bool = True) -> subprocess.CompletedProcess[str]:
        for number, name in enumerate(["dash", *(["raylet"] if raylet else [])]):
            process = tmp_path / "proc" / str(number)
            process.mkdir(parents=True)
            (process / "comm").write_text(f"{name}\n")
            flags = ["/opt/raylet", f"--gcs-address={GCS}", f"--node_id={NODE}", "--head=false"]
            (process / "cmdline").write_text("\0".join(flags) if name == "raylet" else "dash")
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PROCESSES": str(tmp_path / "proc"),
        }
        return subprocess.run(
            [SCRIPT, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def drained(seconds: int, why: str) -> str:
    return (
        f"ray drain-node --address {GCS} --node-id {NODE} --reason DRAIN_NODE_REASON_PREEMPTION "
        f"--reason-message {why} --deadline-remaining-seconds {seconds}"
    )


def test_a_pod_that_is_deleted_drains_its_own_node(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert run("now", "50").returncode == 0
    assert calls(tmp_path) == [drained(50, "the pod is being deleted")]


def test_it_waits_for_work_that_goes_on_and_no_longer_than_allowed(
    tmp_path: Path, commands: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write(commands / "ray", f'echo "ray $*" >>{tmp_path}/calls')
    assert run("now", "3").returncode == 0
    assert calls(tmp_path)[1:] == ["sleep 1"] * 3


def test_a_spot_machine_is_drained_once_ec2_says_so(
    tmp_path: Path, commands: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # EC2 answers each question with 404 twice, and knows only who has asked for a token.
    write(
        commands / "wget",
        f"""case "$*" in
*--method=PUT*X-aws-ec2-metadata-token-ttl-seconds*/latest/api/token) echo t0ken ;;
*"X-aws-ec2-metadata-token: t0ken"*/meta-data/spot/instance-action)
    echo "asked" >>{tmp_path}/calls
    [ "$(grep -c asked {tmp_path}/calls)" -gt 2 ] || exit 8 ;;
*) exit 4 ;;
esac""",
    )
    assert run("spot").returncode == 0
    assert calls(tmp_path) == [
        *["asked", "sleep 5"] * 2,
        "asked",
        drained(110, "the spot instance is reclaimed"),
    ]


def test_no_metadata_is_no_notice(
    tmp_path: Path, commands: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write(commands / "wget", "exit 4")
    write(commands / "sleep", f"echo waited >>{tmp_path}/calls; kill $PPID")
    assert run("spot").returncode != 0
    assert calls(tmp_path) == ["waited"]


def test_without_ray_it_says_so(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = run("now", raylet=False)
    assert (result.returncode, calls(tmp_path)) == (1, [])
    assert result.stderr == "draining this machine: no Ray runs on it; start Ray first\n"


@pytest.mark.parametrize("arguments", [[], ["later"]])
def test_another_word_is_refused(
    run: Callable[..., subprocess.CompletedProcess[str]], arguments: list[str]
) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert "spot|now" in result.stderr
