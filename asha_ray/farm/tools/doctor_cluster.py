"""`doctor --address`: what a cluster has and lacks, seen from here and from one of its workers."""

import platform
import re
import secrets
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import asha_ray
from asha_ray.config import Target
from asha_ray.errors import AshaError, ClusterError
from asha_ray.farm.jobs.shipping import send_command
from asha_ray.farm.on_ray.dashboard import RAY_HERE, Dashboard
from asha_ray.farm.tools.doctor import Finding
from asha_ray.farm.tools.probe import (
    NO_WORK,
    Report,
    finding_of,
    read_report,
    try_storage,
    within,
)
from asha_ray.progress import NullProgress, Progress
from asha_ray.storage.base import is_s3, redacted

LIMIT_S = 120.0
OUTSIDE_S = 45.0
"""For the cluster's dashboard to tell what it knows."""
STOP_S = 10.0
START_S = 15.0
"""What a probe's process takes to begin; the rest of the time is its own."""
POLL_S = 1.0
LAST_WORDS = 300
"""Of a log, where a probe has not answered."""
HEAD = "node:__internal_head__"


def examine_cluster(
    target: Target, *, limit_s: float = LIMIT_S, progress: Progress | None = None
) -> list[Finding]:
    """Look at a cluster.

    Args:
        target: which, and the work root that its workers must reach.
        limit_s: all of it is done after so many seconds, whatever does not answer.
        progress: hears how far it is.
    """
    progress = progress or NullProgress()
    ends = time.monotonic() + limit_s
    progress.stage("asking the cluster")
    findings = _token_file(target)
    try:
        cluster, seen = within(min(OUTSIDE_S, limit_s), _from_outside, target)
    except TimeoutError:
        slow = f"{target.address} takes too long to answer"
        remedy = "see whether its head is overloaded, and how good the way to it is"
        return [*findings, Finding("cluster", slow, remedy)]
    findings += seen
    work, told = _work(target)
    if cluster is None:
        return [*findings, *told]
    if work is not None:
        progress.stage("trying the work root")
        told = [try_storage(work, _name())]
    progress.stage("looking around on a worker")
    return [*findings, *told, *_from_worker(cluster, target, work, ends)]


def _token_file(target: Target) -> list[Finding]:
    path = target.token_path
    if path is None:
        return []
    with suppress(OSError):  # gone since it was read
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            told = f"{path}: others on this machine may read or change it (mode {mode:04o})"
            return [Finding("token file", told, f"chmod 600 {path}")]
    return [Finding("token file", f"{path}: nobody else may read it")]


def _work(target: Target) -> tuple[str | None, list[Finding]]:
    """The work root that a cluster can write, and what is to be said where there is none."""
    if target.work is None:
        remedy = "give --work s3://…, or work in the configuration file"
        return None, [Finding("work", "no work root is known, so storage is not tried", remedy)]
    work = target.require_work()
    if not is_s3(work) and not target.shared_disk:
        told = f"{work} lies on this machine, and a cluster cannot write there"
        return None, [Finding("work", told, "give --work s3://…")]
    return work, []


def _from_outside(target: Target) -> tuple[Dashboard | None, list[Finding]]:
    """What the dashboard tells; no cluster where nothing can be given to it."""
    findings: list[Finding] = []
    try:
        cluster = Dashboard(target.address, target.token)
        wants_token = cluster.wants_token()
        there = cluster.versions()
        findings += [
            _versions(target.address, there.ray, there.python),
            _token(wants_token=wants_token),
        ]
        nodes, can_grow = cluster.nodes(), cluster.can_grow()
    except ClusterError as error:
        return None, [*findings, finding_of("cluster", error)]
    room = _nodes(nodes, can_grow=can_grow)
    findings += [room, *_head(nodes, can_grow=can_grow)]
    return None if room.remedy else cluster, findings


def _versions(address: str, ray: str, python: str) -> Finding:
    here = f"Ray {RAY_HERE}, Python {platform.python_version()}"
    there = f"Ray {ray}, Python {python or 'unknown'}"
    return Finding("cluster", f"{address}: {there}; here {here}")


def _token(*, wants_token: bool) -> Finding:
    if wants_token:
        return Finding("token", "it is right, and nobody gets in without")
    return Finding(
        "token",
        "the cluster wants none: whoever reaches its ports can run anything there",
        "start every node with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, a file of mode 0600",
    )


def _nodes(nodes: Sequence[Mapping[str, float]], *, can_grow: bool) -> Finding:
    cpus, gpus, memory = (
        sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU", "memory")
    )
    grows = "more join when there is work" if can_grow else "none joins by itself"
    told = f"{len(nodes)}, with {cpus:g} CPUs, {gpus:g} GPUs and {memory / 1e9:.0f} GB; {grows}"
    lacking = cpus < 1 and not can_grow
    return Finding("nodes", told, "add a worker node; none has a CPU to work on" * lacking)


def _head(nodes: Sequence[Mapping[str, float]], *, can_grow: bool) -> list[Finding]:
    head = next((node for node in nodes if HEAD in node), None)
    if head is None:
        return []
    cpus = head.get("CPU", 0)
    if cpus < 1:
        return [Finding("head", "no CPUs, so no work lands on it")]
    if len(nodes) == 1 and not can_grow:
        return [Finding("head", f"{cpus:g} CPUs; it is the only node, and does all the work")]
    told = f"{cpus:g} CPUs: chunks land beside what keeps the cluster together"
    return [Finding("head", told, "start it with --num-cpus=0")]


def _from_worker(
    cluster: Dashboard, target: Target, work: str | None, ends: float
) -> list[Finding]:
    """What a worker sees."""
    name = _name()
    report: Report | None = None
    seconds = max(1.0, ends - time.monotonic() - START_S - STOP_S)
    words = ["probe", name, "--work", work or NO_WORK, "--seconds", f"{seconds:.0f}"]
    waiter = _Waiter(cluster, name, ends - STOP_S)
    try:
        waiter.bounded(
            send_command, cluster, name, words, metadata={"asha_probe": name}, image=target.image
        )
        report = waiter.report()
    except (AshaError, TimeoutError) as error:
        waiter.trouble = error
    finally:
        waiter.stop()
    if report is None:
        return [waiter.why()]
    return [
        _version(report.version, target),
        *(Finding(f"worker {each.name}", each.value, each.remedy) for each in report.findings),
    ]


def _version(there: str, target: Target) -> Finding:
    here = asha_ray.__version__
    if there == here:
        came = "in its image" if target.image else "sent along"
        return Finding("asha-ray", f"{there}, {came}")
    remedy = (
        "build its image anew, or give --ship"
        if target.image
        else "another one stands before what is sent: unset PYTHONPATH on its nodes"
    )
    return Finding("asha-ray", f"{there} there, {here} here", remedy)


class _Waiter:
    """Waits for a probe, and finds out why it does not answer.

    Args:
        cluster: that runs it.
        name: of the job.
        ends: on the monotonic clock, when to give up.
    """

    def __init__(self, cluster: Dashboard, name: str, ends: float) -> None:
        self._cluster, self._name, self._ends = cluster, name, ends
        self._status, self._message, self._log = "", "", ""
        self.trouble: Exception | None = None

    def bounded(self, action: Any, *arguments: Any, **options: Any) -> Any:
        """Ask the cluster something."""
        left_s = self._ends - time.monotonic()
        return within(left_s, lambda: action(*arguments, **options))

    def report(self) -> Report | None:
        """What it has found; None where it ended without a word, or is not heard of in time."""
        while time.monotonic() < self._ends:
            try:
                job = self.bounded(self._cluster.find, self._name)
                if job is None:
                    raise ClusterError(
                        f"looking for job {self._name}: the cluster took it and knows nothing of "
                        "it now; see whether its head was started anew"
                    )
                self.trouble, self._status, self._message = None, job.status, job.message
                if job.has_ended:
                    return self._read()
            except ClusterError as error:  # a tunnel may come back
                self.trouble = error
            time.sleep(POLL_S)
        return None

    def stop(self) -> None:
        """End it, unless it has ended."""
        if self._status not in ("SUCCEEDED", "FAILED", "STOPPED"):
            with suppress(AshaError, TimeoutError):
                within(STOP_S, self._cluster.stop, self._name)

    def why(self) -> Finding:
        """Why there is no report."""
        if isinstance(self.trouble, AshaError):
            return finding_of("worker", self.trouble)
        if self._status in ("", "PENDING"):
            told = "a small job that was given to it has not begun in time, and is stopped"
            remedy = "see in the dashboard's Jobs whether the head is short of memory or disk"
            return Finding("worker", told, remedy)
        if self._status == "RUNNING":
            told = "a small job that was given to it has not ended in time, and is stopped"
            return Finding("worker", told, "see in the dashboard whether its nodes are overloaded")
        return self._failed()

    def _read(self) -> Report | None:
        self._log = self.bounded(self._cluster.log, self._name)
        return read_report(self._name, self._log)

    def _failed(self) -> Finding:
        words = redacted(" ".join((self._log or self._message).split()))
        told = f"a small job ended without an answer ({self._status}): … {words[-LAST_WORDS:]}"
        missing = re.search(r"No module named '?([\w.]+)", words)
        if missing and missing[1].partition(".")[0] == "asha_ray":
            return Finding("worker", told, "give --ship, or build its image with asha-ray in it")
        if missing:
            return Finding("worker", told, f"install {missing[1]} on the cluster's machines")
        return Finding("worker", told, "see the job's log in the dashboard")


def _name() -> str:
    return f"asha-doctor-{secrets.token_hex(6)}"
