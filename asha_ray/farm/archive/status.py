"""How far an archive is, from its ledger alone: also when nobody works on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from asha_ray.farm.archive.others import living_runs
from asha_ray.storage.journal import moment, number
from asha_ray.storage.ledger import ShowRecord

HOUR_S = 3600.0
MAX_TROUBLED = 1000
"""Shows that are named as parked or failed, and files that are named as refused."""


@dataclass(frozen=True)
class Trouble:
    """A show that could not be made.

    Attributes:
        key: its path below the source.
        reason: why, and what to do.
        attempts: how often it was tried.
        time: when it was tried last, in UTC.
    """

    key: str
    reason: str
    attempts: int
    time: str


@dataclass(frozen=True)
class LiveRun:
    """A run that works on the archive now.

    Attributes:
        driver: its name.
        host: where its driver is.
        started: when it began, in UTC.
        num_shows: that it set out to make.
        num_done: of these.
        num_failed: of these, to be tried again.
        num_parked: of these, until a person says so.
        in_hand: keys of the shows that it is at.
        workers: that render now; None where it did not say.
        rate: seconds of sound that it has finished, a second; None before the first show is done.
    """

    driver: str
    host: str
    started: str
    num_shows: int
    num_done: int
    num_failed: int
    num_parked: int
    in_hand: tuple[str, ...]
    workers: int | None
    rate: float | None


@dataclass(frozen=True)
class ArchiveStatus:
    """How far an archive is.

    Attributes:
        output: where its videos are.
        source: where its sound is; empty where no run has said so yet.
        time: when this was found out, in UTC.
        num_shows: that are known: those that have ended in some way, and those that wait.
        num_done: whose video is there.
        num_failed: that failed and are tried again by themselves.
        num_parked: that wait for a person.
        num_skipped: that their settings leave out.
        num_forgotten: that were taken down for good.
        num_waiting: that no run has tried yet, of those that the latest plan found.
        hours_done: of sound whose video is there.
        hours_waiting: of sound that waits, estimated from its bytes; None where nothing is known.
        rate: hours of sound an hour, of the runs that work now; None where none does.
        gpu_hours: that all runs' workers have held.
        cpu_hours: the same of workers without a GPU.
        cost: price so far; None where nobody said what an hour costs.
        currency: of it.
        left_s: seconds until nothing waits, at that rate; None where that cannot be told.
        running: the runs that work now, the latest first.
        parked: the latest of these shows, the latest first; at most 1000, as of the next two.
        failed: likewise.
        refused: files that are no shows, and why.
    """

    output: str
    source: str
    time: str
    num_shows: int
    num_done: int
    num_failed: int
    num_parked: int
    num_skipped: int
    num_forgotten: int
    num_waiting: int
    hours_done: float
    hours_waiting: float | None
    rate: float | None
    gpu_hours: float
    cpu_hours: float
    cost: float | None
    currency: str
    left_s: float | None
    running: tuple[LiveRun, ...]
    parked: tuple[Trouble, ...]
    failed: tuple[Trouble, ...]
    refused: tuple[tuple[str, str], ...]


def status_of(
    output: str,
    records: Iterable[ShowRecord],
    heartbeats: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any] | None,
    now: datetime,
) -> ArchiveStatus:
    """How far an archive is.

    Args:
        output: where its videos are.
        records: of all its shows.
        heartbeats: of its runs, the latest first.
        plan: what the latest run found in the source; None before the first.
        now: the moment that this tells of.
    """
    plan = plan or {}
    by_state: dict[str, list[ShowRecord]] = {}
    for record in records:
        by_state.setdefault(record.state, []).append(record)
    done, failed = by_state.get("done", []), by_state.get("failed", [])
    parked, forgotten = by_state.get("parked", []), by_state.get("forgotten", [])
    skipped = by_state.get("skipped", [])
    living = living_runs(heartbeats)
    running = tuple(_live_run(beat) for beat in living)
    num_waiting, waiting_bytes = _waiting(plan, [*done, *parked, *skipped], failed)
    left = [number(beat, "bytes_left") for beat in living]
    waiting_s = _sound_s(max(left, default=waiting_bytes), done)
    rates = [run.rate for run in running if run.rate is not None]
    rate = sum(rates) if rates else None
    cost, currency = _cost(heartbeats)
    return ArchiveStatus(
        output=output,
        source=str(plan.get("source", "")),
        time=now.astimezone(UTC).isoformat(timespec="seconds"),
        num_shows=len(done) + len(failed) + len(parked) + len(skipped) + num_waiting,
        num_done=len(done),
        num_failed=len(failed),
        num_parked=len(parked),
        num_skipped=len(skipped),
        num_forgotten=len(forgotten),
        num_waiting=num_waiting,
        hours_done=sum(record.duration_s for record in done) / HOUR_S,
        hours_waiting=None if waiting_s is None else waiting_s / HOUR_S,
        rate=rate,
        gpu_hours=sum(number(beat, "gpu_s") for beat in heartbeats) / HOUR_S,
        cpu_hours=sum(number(beat, "cpu_s") for beat in heartbeats) / HOUR_S,
        cost=cost,
        currency=currency,
        left_s=_left_s(waiting_s, rate),
        running=running,
        parked=_troubles(parked),
        failed=_troubles(failed),
        refused=_refused(plan),
    )


def _waiting(
    plan: Mapping[str, Any], ended: Iterable[ShowRecord], failed: Iterable[ShowRecord]
) -> tuple[int, float]:
    """Shows of the plan that nobody has tried, and bytes of their sound files."""
    planned = moment(plan.get("time"))
    since = [record for record in ended if planned and (moment(record.time) or planned) > planned]
    # What has failed was to be done by the plan, whenever that was: it counts as failed alone.
    tried = [*since, *failed]
    left_bytes = number(plan, "todo_bytes") - sum(record.source_bytes for record in tried)
    return max(0, int(number(plan, "todo")) - len(tried)), max(0.0, left_bytes)


def _sound_s(num_bytes: float, done: Iterable[ShowRecord]) -> float | None:
    """Seconds of sound that so many bytes hold, if they are as those that are done."""
    if not num_bytes:
        return 0.0
    known = [record for record in done if record.source_bytes > 0 and record.duration_s > 0]
    known_bytes = sum(record.source_bytes for record in known)
    if not known_bytes:
        return None
    return num_bytes * sum(record.duration_s for record in known) / known_bytes


def _left_s(waiting_s: float | None, rate: float | None) -> float | None:
    if waiting_s is None or not rate:
        return None
    left_s = waiting_s / rate
    return left_s if isfinite(left_s) else None


def _live_run(beat: Mapping[str, Any]) -> LiveRun:
    started, heard = moment(beat.get("started")), moment(beat.get("time"))
    elapsed_s = (heard - started).total_seconds() if started and heard else 0.0
    sound_s = number(beat, "sound_s")
    in_hand = beat.get("in_hand")
    return LiveRun(
        driver=str(beat.get("driver", "")),
        host=str(beat.get("host", "")),
        started=str(beat.get("started", "")),
        num_shows=int(number(beat, "shows")),
        num_done=int(number(beat, "shows_done")),
        num_failed=int(number(beat, "shows_failed")),
        num_parked=int(number(beat, "shows_parked")),
        in_hand=tuple(map(str, in_hand)) if isinstance(in_hand, list) else (),
        workers=int(number(beat, "workers")) if "workers" in beat else None,
        rate=sound_s / elapsed_s if sound_s and elapsed_s > 0 else None,
    )


def _cost(heartbeats: Iterable[Mapping[str, Any]]) -> tuple[float | None, str]:
    """What all runs have cost in the latest one's currency; others cannot be added to it."""
    priced = [beat for beat in heartbeats if beat.get("cost") is not None]
    if not priced:
        return None, ""
    currency = str(priced[0].get("currency", ""))
    same = [beat for beat in priced if str(beat.get("currency", "")) == currency]
    return sum(number(beat, "cost") for beat in same), currency


def _troubles(records: Iterable[ShowRecord]) -> tuple[Trouble, ...]:
    latest = sorted(records, key=lambda record: (record.time, record.key), reverse=True)
    return tuple(
        Trouble(record.key, record.reason, record.attempts, record.time)
        for record in latest[:MAX_TROUBLED]
    )


def _refused(plan: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    refused = plan.get("refused")
    pairs = refused[:MAX_TROUBLED] if isinstance(refused, list) else []
    return tuple(
        (str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2
    )
