"""What `doctor` sends to a cluster: it looks around on a worker, and answers by way of its log.

By the log and not by storage, since what is wrong may be just that.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import asha_ray
from asha_ray.errors import AshaError, StorageError
from asha_ray.farm.tools.doctor import Finding, examine_worker
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import redacted

STORAGE_S = 20.0
"""For one small object to be written, listed, read and deleted."""
NUM_BYTES = 1 << 20
MAX_FINDINGS, MAX_TEXT = 50, 2000
"""Of an answer, which comes from a machine that is not this one."""
NO_WORK = "-"
"""Stands for a work root where none is known."""

Answer = TypeVar("Answer")


class Report(NamedTuple):
    """What a probe has found.

    Attributes:
        version: of the asha-ray that it is part of.
        findings: of a worker.
    """

    version: str
    findings: list[Finding]


def probe(name: str, work: str, seconds: float) -> str:
    """Look around on a worker of the cluster that this process runs on.

    Args:
        name: of this probe, which nothing else has.
        work: the work root that a worker must reach, or `NO_WORK`.
        seconds: that it may take.

    Returns:
        A line for its log, as `report_line` makes it.
    """
    from asha_ray.farm.on_ray.probe import on_worker

    try:
        findings = on_worker(seconds, look, work, name, asha_ray.__version__)
    except AshaError as error:
        findings = [finding_of("process", error)]
    return report_line(name, findings)


def report_line(name: str, findings: Sequence[Finding]) -> str:
    """What a probe has found, for a log."""
    mark = _mark(name)
    said = {"version": asha_ray.__version__, "findings": [asdict(each) for each in findings]}
    return f"{mark}{json.dumps(said)}{mark}"


def read_report(name: str, log: str) -> Report | None:
    """What a probe has found; None where its log does not tell, or tells nonsense."""
    mark = re.escape(_mark(name))
    found = re.search(f"{mark}(.*){mark}", log)
    if found is None:
        return None
    try:
        said = json.loads(found[1])
        findings = [_read_finding(each) for each in said["findings"][:MAX_FINDINGS]]
        return Report(str(said["version"])[:MAX_TEXT], findings)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def look(has_gpu: bool, work: str, name: str, version: str) -> list[Finding]:
    """Look around on this machine, as a worker.

    Args:
        has_gpu: whether Ray has given it a GPU.
        work: the work root, or `NO_WORK`.
        name: of the object that is written there.
        version: of the driver's asha-ray, which this one should be.
    """
    findings = [_same(version), *examine_worker(has_gpu=has_gpu)]
    return findings if work == NO_WORK else [*findings, try_storage(work, name)]


def _same(version: str) -> Finding:
    own = asha_ray.__version__
    if own == version:
        return Finding("asha-ray", own)
    told = f"{own} in {Path(asha_ray.__file__).parent}, and its driver runs {version}"
    return Finding("asha-ray", told, "start all nodes from one image")


def try_storage(work: str, name: str, limit_s: float = STORAGE_S) -> Finding:
    """Write, list, read back and delete an object below a work root.

    Args:
        work: the work root.
        name: of the object, which nobody else uses.
        limit_s: what is waited for. A server that is away may come back, so storage waits longer.
    """
    try:
        times = within(limit_s, _round_trip, work, name)
    except TimeoutError:
        return Finding(
            "storage",
            f"{work} has not answered in {limit_s:g} s",
            "check AWS_ENDPOINT_URL and the network from there to it",
        )
    except AshaError as error:
        return finding_of("storage", error)
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in times.items())
    return Finding("storage", f"{work}, {NUM_BYTES >> 20} MiB: {steps}")


def _round_trip(work: str, name: str) -> Mapping[str, float]:
    """Seconds that each step took.

    Raises:
        StorageError: if one fails, or what was written is not what is there.
    """
    storage, folder = storage_of(work), join(work, "doctor")
    uri, content = join(folder, name), secrets.token_bytes(NUM_BYTES)
    times: dict[str, float] = {}

    def timed(step: str, action: Callable[[], Answer]) -> Answer:
        begun = time.monotonic()
        answer = action()
        times[step] = time.monotonic() - begun
        return answer

    timed("write", lambda: storage.write(uri, content))
    try:
        listed = timed("list", lambda: [entry.uri for entry in storage.list(folder)])
        read = timed("read", lambda: storage.read(uri))
    finally:
        timed("delete", lambda: storage.delete(uri))
    if uri not in listed or read != content:
        what = "a list does not show it" if read == content else "it reads back changed"
        raise StorageError(
            f"checking {uri}: {what}; use a store that is consistent, with no cache before it"
        )
    return times


def finding_of(name: str, error: AshaError) -> Finding:
    """An error, whose last words say what to do, as a finding."""
    value, _, remedy = redacted(str(error)).rpartition("; ")
    return Finding(name, value or remedy, remedy if value else "see above")


def within(seconds: float, action: Callable[..., Answer], *arguments: Any) -> Answer:
    """What an action answers or raises, where it does so in time.

    It goes on in a thread of its own otherwise, and ends with the process.

    Raises:
        TimeoutError: if it takes longer.
    """
    answers: SimpleQueue[tuple[Answer | None, BaseException | None]] = SimpleQueue()

    def act() -> None:
        try:
            answers.put((action(*arguments), None))
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            answers.put((None, error))

    Thread(target=act, daemon=True).start()
    try:
        answer, error = answers.get(timeout=max(0.0, seconds))
    except Empty:
        raise TimeoutError(f"not within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _mark(name: str) -> str:
    return f"<<asha-probe {name}>>"


def _read_finding(data: Any) -> Finding:
    texts = (str(data[field])[:MAX_TEXT] for field in ("name", "value", "remedy"))
    return Finding(*texts)
