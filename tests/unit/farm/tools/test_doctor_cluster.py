"""`doctor --address` before a dashboard that is none: what it finds, says, and never waits for."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import asha_ray
from asha_ray.config import Target
from asha_ray.farm.tools import doctor_cluster
from asha_ray.farm.tools.doctor import Finding
from asha_ray.farm.tools.doctor_cluster import examine_cluster
from asha_ray.farm.tools.probe import NO_WORK, report_line
from tests.dashboard import GPU_WORKER, HEAD, WORKER, FakeDashboard, Job, Reply, dashboard

TOKEN = "a-token-that-nobody-may-see"
FOUND = [Finding("python", "3.11.9"), Finding("gpu", "Ray gives one, torch sees none", "mend it")]


def answers(name: str, job: Job) -> None:
    """A probe that found something, amid what else is said."""
    job.status, job.log = "SUCCEEDED", f"INFO joining\n{report_line(name, FOUND)}\nINFO bye\n"


class Clock:
    """Time that passes where it is waited for, and only there."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s, self._passed_s = pause_s, 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._passed_s

    def sleep(self, _: float) -> None:
        self._passed_s += self._pause_s


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_cluster, "time", Clock(0))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a probe has been asked for and is not done, all the time is over."""
    monkeypatch.setattr(doctor_cluster, "time", Clock(1000))


@pytest.fixture
def there() -> Iterator[FakeDashboard]:
    with dashboard(token=TOKEN, on_submit=answers) as made:
        yield made


@pytest.fixture
def target(there: FakeDashboard, tmp_path: Path) -> Target:
    """The cluster's image has asha-ray: packing it takes longer than all else."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    work = str(tmp_path / "work")
    return Target(there.address, TOKEN, work, shared_disk=True, token_path=path, image=True)


def examine(target: Target) -> dict[str, Finding]:
    findings = examine_cluster(target)
    assert TOKEN not in str(findings)
    assert len({each.name for each in findings}) == len(findings)
    return {each.name: each for each in findings}


def test_a_sound_cluster_needs_nothing(there: FakeDashboard, target: Target) -> None:
    there.on_submit = lambda name, job: answers_with(name, job, [FOUND[0]])

    found = examine(target)

    assert [each for each in found.values() if each.remedy] == []
    assert list(found) == [
        "token file", "cluster", "token", "nodes", "head", "storage", "asha-ray", "worker python",
    ]  # fmt: skip
    assert "Ray 2.60.0, Python 3.11.9; here Ray " in found["cluster"].value
    assert found["nodes"].value == "2, with 8 CPUs, 0 GPUs and 39 GB; none joins by itself"


def answers_with(name: str, job: Job, findings: list[Finding]) -> None:
    job.status, job.log = "SUCCEEDED", report_line(name, findings)


def test_what_a_worker_lacks_is_told_as_its_own(target: Target) -> None:
    assert examine(target)["worker gpu"] == replace(FOUND[1], name="worker gpu")


def test_a_token_file_that_others_may_read_is_told(target: Target) -> None:
    assert target.token_path is not None
    target.token_path.chmod(0o640)

    found = examine(target)["token file"]
    assert "mode 0640" in found.value
    assert found.remedy == f"chmod 600 {target.token_path}"


def test_a_cluster_that_wants_no_token_is_told(there: FakeDashboard, target: Target) -> None:
    """Whoever reaches its port can run code there."""
    there.token = None

    found = examine(target)["token"]
    assert "can run anything there" in found.value
    assert "RAY_AUTH_MODE=token" in found.remedy


@pytest.mark.parametrize(
    ("token", "told"),
    [(None, "it wants a token"), ("wrong", "it refuses this token")],
    ids=["none", "wrong"],
)
def test_without_the_right_token_nothing_more_is_tried(
    there: FakeDashboard, target: Target, token: str | None, told: str
) -> None:
    found = examine(replace(target, token=token, token_path=None))

    assert list(found) == ["cluster"]
    assert told in found["cluster"].value + found["cluster"].remedy
    assert "--token-file" in found["cluster"].remedy
    assert there.jobs == {}


def test_where_nobody_answers_the_address_is_to_be_checked(target: Target) -> None:
    with dashboard() as gone:
        pass

    found = examine(replace(target, address=gone.address))["cluster"]
    assert found.value.endswith("nobody answers")
    assert found.remedy.startswith("check --address")


def test_what_is_no_ray_is_told(there: FakeDashboard, target: Target) -> None:
    there.replies["/api/authentication_mode"] = there.replies["/api/version"] = Reply(200, "<html>")

    found = examine(target)["cluster"]
    assert found.value.endswith("is no Ray dashboard")
    assert "8265" in found.remedy


def test_a_cluster_too_old_is_told(there: FakeDashboard, target: Target) -> None:
    there.ray_version = "2.9.0"

    found = examine(target)["cluster"]
    assert "Ray 2.9.0" in found.value
    assert found.remedy == "start it from a newer image"


def test_a_dashboard_that_never_answers_is_given_up(
    there: FakeDashboard, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_cluster, "OUTSIDE_S", 0.3)
    there.silent.add("/api/v0/nodes")

    found = examine(target)["cluster"]
    assert found.value == f"{there.address} takes too long to answer"
    assert found.remedy


def test_a_head_with_cpus_beside_workers_is_told(there: FakeDashboard, target: Target) -> None:
    there.nodes = ({**HEAD, "CPU": 4.0}, WORKER)

    found = examine(target)["head"]
    assert found.value.startswith("4 CPUs: chunks land")
    assert found.remedy == "start it with --num-cpus=0"


def test_a_head_with_cpus_that_is_alone_may_have_them(there: FakeDashboard, target: Target) -> None:
    """Without them a cluster of one machine could do nothing."""
    there.nodes = ({**HEAD, "CPU": 4.0},)

    assert examine(target)["head"].remedy == ""

    there.can_grow = True
    assert examine(target)["head"].remedy != ""


@pytest.mark.parametrize("nodes", [(), (HEAD,)], ids=["no-node", "no-cpu"])
def test_where_nothing_can_work_no_probe_is_sent(
    there: FakeDashboard, target: Target, nodes: Any
) -> None:
    """It would only be waited for."""
    there.nodes = nodes

    assert examine(target)["nodes"].remedy.startswith("add a worker node")
    assert there.jobs == {}


def test_a_cluster_that_grows_needs_no_node_yet(there: FakeDashboard, target: Target) -> None:
    there.nodes, there.can_grow = (HEAD,), True

    found = examine(target)
    assert found["nodes"] == Finding(
        "nodes", "1, with 0 CPUs, 0 GPUs and 4 GB; more join when there is work"
    )
    assert "worker python" in found


def test_gpus_are_counted(there: FakeDashboard, target: Target) -> None:
    there.nodes = (HEAD, GPU_WORKER, GPU_WORKER)

    assert "3, with 16 CPUs, 2 GPUs" in examine(target)["nodes"].value


def test_without_a_work_root_the_rest_is_looked_at(there: FakeDashboard, target: Target) -> None:
    found = examine(replace(target, work=None))

    assert "--work" in found["work"].remedy
    assert "storage" not in found
    assert "worker python" in found
    [job] = there.jobs.values()
    assert f"--work {NO_WORK} " in job.given["entrypoint"]


def test_a_work_root_on_this_machine_is_none_for_a_cluster(target: Target) -> None:
    found = examine(replace(target, shared_disk=False))["work"]

    assert "lies on this machine" in found.value
    assert found.remedy == "give --work s3://…"


def test_a_probe_goes_as_jobs_go(there: FakeDashboard, target: Target) -> None:
    examine(replace(target, image=False))
    examine(target)

    sent, in_image = there.jobs.values()
    assert sent.given["entrypoint"].startswith("python -P -m asha_ray probe asha-doctor-")
    assert len(sent.given["runtime_env"]["py_modules"]) == 1
    assert "py_modules" not in in_image.given["runtime_env"]


@pytest.mark.parametrize(("image", "remedy"), [(True, "--ship"), (False, "PYTHONPATH")])
def test_another_version_there_is_told(
    there: FakeDashboard, target: Target, image: bool, remedy: str
) -> None:
    def answers_as_older(name: str, job: Job) -> None:
        answers(name, job)
        job.log = job.log.replace(f'"{asha_ray.__version__}"', '"0.0.1"')

    there.on_submit = answers_as_older

    found = examine(replace(target, image=image))["asha-ray"]
    assert found.value == f"0.0.1 there, {asha_ray.__version__} here"
    assert remedy in found.remedy


def fails(log: str, message: str = "") -> Callable[[str, Job], None]:
    def failed(_name: str, job: Job) -> None:
        job.status, job.log, job.message = "FAILED", log, message

    return failed


@pytest.mark.parametrize(
    ("log", "message", "value", "remedy"),
    [
        (
            "Traceback …\nModuleNotFoundError: No module named 'pydantic'\n", "exit code 1",
            "No module named 'pydantic'", "install pydantic on the cluster's machines",
        ),
        (
            "/usr/bin/python: No module named asha_ray\n", "exit code 1",
            "No module named asha_ray", "give --ship, or build its image with asha-ray in it",
        ),
        (
            "", "failed to set up the runtime environment", "runtime environment",
            "see the job's log in the dashboard",
        ),
        (
            "no answer from http://me:hush@host/", "", "http://***@host/",
            "see the job's log in the dashboard",
        ),
        (
            "<<asha-probe x>>{torn", "", "torn", "see the job's log in the dashboard",
        ),
    ],
    ids=["dependency", "no-asha-ray", "no-log", "secret", "torn"],
)  # fmt: skip
def test_a_probe_that_fails_tells_its_last_words(
    there: FakeDashboard, target: Target, log: str, message: str, value: str, remedy: str
) -> None:
    there.on_submit = fails(log, message)

    found = examine(target)["worker"]
    assert value in found.value
    assert found.remedy == remedy
    assert "hush" not in found.value


@pytest.mark.parametrize(
    ("status", "told"),
    [("PENDING", "has not begun in time"), ("RUNNING", "has not ended in time")],
)
@pytest.mark.usefixtures("late")
def test_a_probe_that_does_not_come_back_is_stopped(
    there: FakeDashboard, target: Target, status: str, told: str
) -> None:
    there.on_submit = lambda _, job: setattr(job, "status", status)

    found = examine(target)["worker"]

    assert told in found.value
    assert found.remedy
    [job] = there.jobs.values()
    assert job.stops == 1


def test_a_probe_is_stopped_when_doctor_is(
    there: FakeDashboard, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Clock):
        def sleep(self, _: float) -> None:
            raise KeyboardInterrupt

    there.on_submit = lambda _, job: setattr(job, "status", "RUNNING")
    monkeypatch.setattr(doctor_cluster, "time", Interrupted(0))

    with pytest.raises(KeyboardInterrupt):
        examine_cluster(target)
    [job] = there.jobs.values()
    assert job.stops == 1


def test_a_probe_that_has_ended_is_not_stopped(there: FakeDashboard, target: Target) -> None:
    examine(target)

    [job] = there.jobs.values()
    assert job.stops == 0


def test_a_tunnel_may_break_for_a_moment(there: FakeDashboard, target: Target) -> None:
    def breaks(name: str, job: Job) -> None:
        path = f"/api/jobs/{name}"
        there.replies[path] = Reply(502, "Bad Gateway")
        answers(name, job)
        wait_then_mend(path)

    def wait_then_mend(path: str) -> None:
        answer = there.answer

        def counted(request: Any) -> Reply:
            reply = answer(request)
            if request.path == path:
                there.replies.pop(path, None)
            return reply

        there.answer = counted  # type: ignore[method-assign]

    there.on_submit = breaks

    assert "worker python" in examine(target)


def test_a_job_that_is_refused_tells_why(there: FakeDashboard, target: Target) -> None:
    there.replies["/api/jobs/"] = Reply(500, "no room for jobs")

    found = examine(target)["worker"]
    assert "no room for jobs" in found.value
    assert found.remedy == "look into its dashboard"


@pytest.mark.usefixtures("late")
def test_a_head_that_forgot_the_job_is_told(there: FakeDashboard, target: Target) -> None:
    there.on_submit = lambda name, _: setattr(there, "jobs", {})

    found = examine(target)["worker"]
    assert "knows nothing of it now" in found.value
    assert "started anew" in found.remedy


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    from asha_ray.cli.main import app

    for name in ("ASHA_TOKEN_FILE", "ASHA_WORK", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str]:
        code = app(["doctor", *arguments], standalone_mode=False)
        return int(code or 0), capsys.readouterr().out

    return run


def test_the_command_prints_and_exits_by_what_it_finds(
    there: FakeDashboard, target: Target, cli: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "asha-ray").mkdir()
    (tmp_path / "asha-ray" / "config.toml").write_text("shared_disk = true\n")
    options = (
        "--address", there.address, "--token-file", str(target.token_path), "--work",
        str(target.work),
    )  # fmt: skip

    code, out = cli(*options)
    assert code == 1
    assert "worker gpu     Ray gives one, torch sees none\n               -> mend it\n" in out

    there.on_submit = lambda name, job: answers_with(name, job, [])
    code, out = cli(*options, "--json")
    assert code == 0
    assert {"name", "value", "remedy"} == set(json.loads(out)["findings"][0])


def test_python_has_the_same(there: FakeDashboard, target: Target) -> None:
    found = asha_ray.doctor(
        address=there.address, token_file=str(target.token_path), work=str(target.work), image=True
    )

    assert "cluster" in {each.name for each in found}
    assert all(asdict(each) for each in found)


def test_without_an_address_no_cluster_is_asked(
    there: FakeDashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHA_ADDRESS", there.address)
    monkeypatch.setitem(sys.modules, "asha_ray.farm.tools.doctor_cluster", None)

    names = {each.name for each in asha_ray.doctor(address=None, work=None)}

    assert "ffmpeg" in names
    assert "cluster" not in names
    assert there.requests == []
