"""How far an archive is, from records, heartbeats and a plan that anybody may have written."""

from datetime import UTC, datetime
from typing import Any

import pytest

from asha_ray.cli.archive_report import archive_document, archive_text
from asha_ray.farm.archive.status import ArchiveStatus, status_of
from asha_ray.storage.ledger import ShowRecord
from tests.unit.farm.archive.fake_ledger import a_show, ago

NOW = datetime(2026, 1, 3, tzinfo=UTC)
PLAN = {
    "time": "2026-01-02T00:00:00+00:00",
    "source": "s3://in",
    "todo": 10,
    "todo_bytes": 3_600_000,
    "refused": [["a.mp3", "it is empty"]],
}


def status(
    records: list[ShowRecord],
    beats: list[dict[str, Any]] | None = None,
    plan: dict[str, Any] | None = None,
) -> ArchiveStatus:
    return status_of("s3://out", records, beats or [], plan, NOW)


def beat(heard_s: float = 1, ran_s: float = 3600, **fields: Any) -> dict[str, Any]:
    times = {"started": ago(heard_s + ran_s), "time": ago(heard_s)}
    return {"state": "running", "driver": "d", "host": "node-1", **times, **fields}


def test_shows_are_counted_once_each() -> None:
    """A show that failed is tried again by itself, and must not count as waiting too."""
    earlier = a_show("old.mp3", time="2026-01-01T00:00:00+00:00")
    found = status(
        [
            earlier,
            a_show("a.mp3"),
            a_show("b.mp3", "failed"),
            a_show("c.mp3", "parked"),
            a_show("d.mp3", "forgotten"),
        ],
        plan=PLAN,
    )
    # Of ten, one was done since, one parked, and one has failed.
    assert (found.num_done, found.num_failed, found.num_parked) == (2, 1, 1)
    assert (found.num_forgotten, found.num_waiting, found.num_shows) == (1, 7, 11)
    assert found.hours_done == 2
    assert found.hours_waiting == pytest.approx(7)
    assert found.source == "s3://in"
    assert found.refused == (("a.mp3", "it is empty"),)


def test_nothing_is_claimed_that_is_not_known() -> None:
    """Before the first show is done nobody knows how much sound a byte holds."""
    found = status([], plan=PLAN)
    assert (found.num_waiting, found.hours_waiting) == (10, None)
    assert (found.rate, found.left_s, found.cost) == (None, None, None)
    assert "how much waits is unknown until the first show is done" in archive_text(found)
    assert status([]).hours_waiting == 0


def test_live_runs_tell_rate_and_time_left() -> None:
    """Two hours of sound in an hour by each of two, and eight hours of sound left."""
    beats = [beat(sound_s=7200, bytes_left=8 * 360_000, in_hand=["x.mp3"], workers=3)] * 2
    found = status([a_show("a.mp3")], [*beats, beat(heard_s=500, sound_s=9e9)], PLAN)
    assert found.rate == pytest.approx(4, rel=1e-3)
    assert found.left_s == pytest.approx(7200, rel=1e-3)
    assert [run.in_hand for run in found.running] == [("x.mp3",)] * 2
    assert found.running[0].workers == 3


def test_what_all_runs_cost_adds_up_in_one_currency() -> None:
    beats = [
        beat(gpu_s=3600, cost=2.5, currency="EUR"),
        beat(heard_s=1e6, gpu_s=7200, cpu_s=1800, cost=1, currency="EUR"),
        beat(heard_s=1e6, cost=100, currency="USD"),
        beat(heard_s=1e6, gpu_s=3600),
    ]
    found = status([], beats)
    assert (found.cost, found.currency) == (3.5, "EUR")
    assert (found.gpu_hours, found.cpu_hours) == (4, 0.5)


@pytest.mark.parametrize(
    "odd",
    [
        {"sound_s": "x", "started": "never", "in_hand": 5, "workers": None, "gpu_s": [1]},
        {"sound_s": float("nan"), "bytes_left": -1, "gpu_s": float("inf"), "cost": "dear"},
        {"sound_s": 10**400, "gpu_s": 2.0**64, "started": "0001-01-01T00:00:00+14:00"},
    ],
    ids=["other kinds", "no numbers", "no bounds"],
)
def test_a_heartbeat_that_says_nonsense_counts_for_nothing(odd: dict[str, Any]) -> None:
    found = status([a_show("a.mp3")], [beat(**odd)], {"refused": [1, ["a"]], "todo": "many"})
    assert (found.rate, found.gpu_hours, found.num_waiting, found.refused) == (None, 0, 0, ())


def test_a_rate_next_to_nothing_tells_no_time_left() -> None:
    """An infinite number of hours cannot be written as days."""
    found = status([a_show("a.mp3")], [beat(sound_s=5e-324 * 1e6, bytes_left=2**62)], PLAN)
    assert found.left_s is None
    assert archive_text(found)


def test_troubles_are_told_the_latest_first() -> None:
    """People look at the top of a list."""
    shows = [
        a_show(f"{day}.mp3", "parked", time=f"2026-01-0{day}", attempts=day, reason="no sound")
        for day in (1, 3, 2)
    ]
    found = status(shows)
    assert [(show.key, show.attempts) for show in found.parked] == [
        ("3.mp3", 3),
        ("2.mp3", 2),
        ("1.mp3", 1),
    ]
    assert archive_document(found)["parked"][0]["reason"] == "no sound"


def test_people_are_told_in_a_few_lines() -> None:
    shows = [a_show("a.mp3"), *(a_show(f"{n}.mp3", "failed", reason="torn") for n in range(25))]
    beats = [beat(sound_s=7200, bytes_left=360_000, shows=9, shows_done=2, gpu_s=3600, cost=1)]
    text = archive_text(status(shows, beats, PLAN))
    assert "shows     26: 1 done, 25 failed" in text
    assert "sound     1.0 hours done, about 1.0 waiting" in text
    assert "rate      2.0 hours of sound an hour" in text
    assert "left      30:00" in text
    assert "used      1.00 GPU hours" in text
    assert "failed, and tried again by themselves:" in text
    assert "and 5 more; see --json" in text
    assert "a.mp3: it is empty" in text
