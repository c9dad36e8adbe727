"""A cluster from outside: what is asked of its dashboard, and what is said when that fails."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asha_ray.errors import ClusterError
from asha_ray.farm.on_ray import dashboard as module
from asha_ray.farm.on_ray.dashboard import Dashboard, Versions
from tests.dashboard import GPU_WORKER, HEAD, HEAD_ID, WORKER, FakeDashboard, Reply, dashboard

TOKEN = "a-token-that-nobody-may-see"
PAGE = "<html><body>It works!</body></html>"


@pytest.fixture
def there() -> Iterator[FakeDashboard]:
    with dashboard(token=TOKEN) as made:
        yield made


@pytest.fixture
def cluster(there: FakeDashboard) -> Dashboard:
    return Dashboard(there.address, TOKEN)


def message_of(action: Any) -> str:
    with pytest.raises(ClusterError) as caught:
        action()
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_versions_are_those_of_the_cluster(there: FakeDashboard, cluster: Dashboard) -> None:
    there.ray_version, there.python_version = "2.61.1", "3.12.4"

    assert cluster.versions() == Versions("2.61.1", "3.12.4")
    assert {request.authorization for request in there.requests} == {f"Bearer {TOKEN}"}


def test_without_a_token_it_says_that_one_is_wanted(there: FakeDashboard) -> None:
    assert message_of(Dashboard(there.address).versions) == (
        f"asking the Ray cluster at {there.address}: it wants a token; give the file that holds "
        "it, --token-file"
    )


def test_a_wrong_token_is_told_apart_from_none(there: FakeDashboard) -> None:
    assert message_of(Dashboard(there.address, "wrong").versions) == (
        f"asking the Ray cluster at {there.address}: it refuses this token; give the file with "
        "its own, --token-file"
    )


def test_whether_a_token_is_wanted_can_be_asked_without_one(there: FakeDashboard) -> None:
    assert Dashboard(there.address).wants_token()

    there.token = None
    assert not Dashboard(there.address).wants_token()


def test_where_nobody_answers_it_names_what_may_be_closed() -> None:
    with dashboard() as gone:
        pass

    assert message_of(Dashboard(gone.address).versions) == (
        f"asking the Ray cluster at {gone.address}: nobody answers; check --address, that the "
        "cluster is up, and that the tunnel to it is open"
    )


def test_a_dashboard_that_does_not_answer_is_not_waited_for(
    there: FakeDashboard, cluster: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    there.silent.add("/api/version")

    assert "nobody answers" in message_of(cluster.versions)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, PAGE),
        Reply(404, PAGE),
        Reply(200, ["a", "list"]),
        Reply(200, {"ray_version": None}),
        Reply(200, {"version": "1.0"}),
    ],
    ids=["page", "not-found", "list", "null", "another-service"],
)
def test_what_is_no_ray_is_said_to_be_none(
    there: FakeDashboard, cluster: Dashboard, reply: Reply
) -> None:
    there.replies["/api/version"] = reply

    assert message_of(cluster.versions) == (
        f"reaching the Ray cluster at {there.address}: what answers there is no Ray dashboard; "
        "check --address (the dashboard's port is 8265 by default)"
    )


def test_an_answer_that_leads_elsewhere_takes_no_token_there(
    there: FakeDashboard, cluster: Dashboard
) -> None:
    with dashboard() as elsewhere:
        there.replies["/api/version"] = Reply(302, f"{elsewhere.address}/api/version")

        assert "no Ray dashboard" in message_of(cluster.versions)
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("ray", "python", "told"),
    [
        ("2.9.3", "3.11.9", "it runs Ray 2.9.3, and asha-ray needs 2.60 or newer"),
        ("2.60.0", "3.9.18", "it runs Python 3.9.18, and asha-ray needs 3.11 or newer"),
    ],
    ids=["ray", "python"],
)
def test_a_cluster_too_old_is_refused(
    there: FakeDashboard, cluster: Dashboard, ray: str, python: str, told: str
) -> None:
    there.ray_version, there.python_version = ray, python

    assert message_of(cluster.versions) == (
        f"using the Ray cluster at {there.address}: {told}; start it from a newer image"
    )


@pytest.mark.parametrize("ask", ["versions", "nodes", "can_grow"])
def test_a_dashboard_in_trouble_is_not_taken_for_another_thing(
    there: FakeDashboard, cluster: Dashboard, ask: str
) -> None:
    """Nothing found and nothing told would be a cluster with no nodes, or none of Ray's."""
    for path in ("/api/version", "/api/v0/nodes", "/api/cluster_status"):
        there.replies[path] = Reply(500, "Internal Server Error")

    told = message_of(getattr(cluster, ask))
    assert told.startswith(f"asking the Ray cluster at {there.address}: 500 Server Error")
    assert told.endswith("; look into its dashboard")


@pytest.mark.parametrize("nodes", [(), (HEAD, WORKER, GPU_WORKER)], ids=["none", "three"])
def test_nodes_are_what_each_has(there: FakeDashboard, cluster: Dashboard, nodes: Any) -> None:
    there.nodes = nodes

    assert cluster.nodes() == list(nodes)


def test_only_living_nodes_are_asked_for(there: FakeDashboard, cluster: Dashboard) -> None:
    cluster.nodes()

    assert "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE" in there.requests[-1].query


def _report(kind: str) -> Reply:
    """What Ray 2.60 says of a head that is of some kind; `legacy` is always true there."""
    report = {"nodeTypeMapping": {HEAD_ID: kind}, "legacy": True, "activeNodes": {kind: 1}}
    return Reply(body={"data": {"clusterStatus": {"autoscalerReport": report}}})


NOTHING = Reply(body={"data": {"clusterStatus": None}})


def _text(active: str) -> Reply:
    text = f"======== Autoscaler status: now ========\nNode status\nActive:\n {active}\nPending:\n"
    return Reply(body={"data": {"clusterStatus": text}})


@pytest.mark.parametrize(
    ("report", "text", "can_grow"),
    [
        (_report("ray.head.default"), NOTHING, True),
        (_report(f"node_{HEAD_ID}"), NOTHING, False),
        (Reply(body={"data": {"clusterStatus": {"loadMetricsReport": {}}}}), NOTHING, False),
        (NOTHING, _text("1 head-group"), True),
        (NOTHING, _text("(no active nodes)"), True),
        (NOTHING, _text(f"1 node_{HEAD_ID}"), False),
        (NOTHING, NOTHING, False),
        (NOTHING, Reply(body={"data": {"clusterStatus": "No cluster status."}}), False),
    ],
    ids=[
        "autoscaler", "by-hand", "too-early", "new-autoscaler", "new-too-early", "new-by-hand",
        "no-monitor", "no-monitor-says-so",
    ],
)  # fmt: skip
def test_a_cluster_grows_where_an_autoscaler_names_its_nodes(
    there: FakeDashboard, cluster: Dashboard, report: Reply, text: Reply, can_grow: bool
) -> None:
    """Else what a node that is yet to join could hold is refused, or none is ever waited for."""
    there.replies["/api/cluster_status"] = report
    there.replies["/api/cluster_status?format=1"] = text

    assert cluster.can_grow() is can_grow


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("ANSWER = 42\n")
    return folder


def submit(cluster: Dashboard, name: str, package: Path | None = None) -> None:
    cluster.submit(name, "python -m asha_ray", {"kind": "render"}, {"ASHA_JOB": name}, package)


def test_a_job_is_given_with_its_package_which_goes_there_once(
    there: FakeDashboard, cluster: Dashboard, package: Path
) -> None:
    submit(cluster, "first", package)
    submit(cluster, "second", package)

    assert len([request for request in there.requests if request.method == "PUT"]) == 1
    [path] = there.packages
    given = there.jobs["second"].given
    assert given["entrypoint"] == "python -m asha_ray"
    assert given["metadata"] == {"kind": "render"}
    assert given["runtime_env"]["env_vars"] == {"ASHA_JOB": "second"}
    [module_uri] = given["runtime_env"]["py_modules"]
    assert path.endswith(module_uri.removeprefix("gcs://"))


def test_a_job_without_a_package_sends_none(there: FakeDashboard, cluster: Dashboard) -> None:
    submit(cluster, "first")

    assert there.packages == {}
    assert "py_modules" not in there.jobs["first"].given["runtime_env"]


def test_no_token_goes_into_a_job(there: FakeDashboard, cluster: Dashboard, package: Path) -> None:
    """Its environment is shown in the dashboard."""
    submit(cluster, "first", package)

    assert TOKEN not in json.dumps(there.jobs["first"].given)


def test_a_job_that_is_not_taken_says_why(there: FakeDashboard, cluster: Dashboard) -> None:
    submit(cluster, "first")

    assert message_of(lambda: submit(cluster, "first")) == (
        f"submitting to the Ray cluster at {there.address}: Request failed with status code 500: "
        "Job with submission_id first already exists..; look into its dashboard"
    )


def test_a_package_that_is_not_taken_is_no_job(
    there: FakeDashboard, cluster: Dashboard, package: Path
) -> None:
    there.answer = _refusing_packages(there)  # type: ignore[method-assign]

    assert "507" in message_of(lambda: submit(cluster, "first", package))
    assert there.jobs == {}


def _refusing_packages(there: FakeDashboard) -> Any:
    answer = there.answer
    full = Reply(507, "Insufficient Storage")
    return lambda request: full if request.method == "PUT" else answer(request)


def test_a_job_is_found_with_what_became_of_it(there: FakeDashboard, cluster: Dashboard) -> None:
    submit(cluster, "first")
    there.jobs["first"].status, there.jobs["first"].message = "FAILED", "it\n  broke"

    found = cluster.find("first")
    assert found is not None
    assert (found.status, found.message, found.has_ended) == ("FAILED", "it broke", True)


def test_a_job_that_nobody_gave_is_none(cluster: Dashboard) -> None:
    assert cluster.find("never-given") is None


def test_a_job_is_stopped_once(there: FakeDashboard, cluster: Dashboard) -> None:
    submit(cluster, "first")

    assert cluster.stop("first") is True
    assert cluster.stop("first") is False
    assert there.jobs["first"].status == "STOPPED"


def test_stopping_what_is_not_there_is_an_error(there: FakeDashboard, cluster: Dashboard) -> None:
    assert message_of(lambda: cluster.stop("never-given")).startswith(
        f"stopping a job on the Ray cluster at {there.address}: "
    )


def test_a_log_is_all_that_was_said(there: FakeDashboard, cluster: Dashboard) -> None:
    submit(cluster, "first")
    there.jobs["first"].log = "one\ntwo\n"

    assert cluster.log("first") == "one\ntwo\n"


def test_long_words_of_a_cluster_are_cut_to_their_end(
    there: FakeDashboard, cluster: Dashboard
) -> None:
    submit(cluster, "first")
    there.jobs["first"].message = "x" * 10_000 + " the reason"

    found = cluster.find("first")
    assert found is not None
    assert len(found.message) < 400
    assert found.message.endswith("the reason")
