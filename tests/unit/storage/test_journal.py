"""Events and heartbeats: small files, in order, and no harm where they cannot be written."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asha_ray.errors import StorageError
from asha_ray.storage import journal
from asha_ray.storage.journal import (
    Journal,
    age_s,
    is_alive,
    read_events,
    read_heartbeat,
    read_log,
)
from asha_ray.storage.local import LocalStorage


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "work" / "renders" / "r")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVENTS_EVERY_S", 0.01)
    monkeypatch.setattr(journal, "HEARTBEAT_EVERY_S", 0.02)


def told(folder: str) -> list[str]:
    events = [str(event["event"]) for event in read_events(folder)]
    return [event for event in events if event != "render-started"]


def test_events_are_read_as_they_were_told(folder: str) -> None:
    with Journal(folder) as told_to:
        told_to.tell("chunk-done", chunk=3, frames=[180, 240], worker="here:7")
        told_to.tell("chunk-failed", error="a line\nand another")

    start, first, second, last = read_events(folder)
    assert start["event"] == "render-started"
    assert (first["event"], first["chunk"], first["frames"]) == ("chunk-done", 3, [180, 240])
    assert second["error"] == "a line\nand another"
    assert last["event"] == "render-done"
    assert datetime.fromisoformat(first["time"]) <= datetime.fromisoformat(last["time"])
    assert datetime.now(UTC) - datetime.fromisoformat(first["time"]) < timedelta(minutes=1)


def test_files_are_numbered_and_never_written_again(folder: str, quick: None) -> None:
    """A bucket cannot append, and two drivers must not write one file."""
    journals = [Journal(folder), Journal(folder)]
    assert journals[0].driver != journals[1].driver
    events = Path(folder) / "events"
    for told_to in journals:
        with told_to:
            for number in range(3):
                told_to.tell("step", number=number)
                deadline = threading.Event()
                while len(list(events.glob(f"{told_to.driver}-*.jsonl"))) <= number:
                    assert not deadline.wait(0.01)

    names = sorted(path.name for path in events.iterdir())
    assert len(names) == 8
    for told_to in journals:
        assert [f"{told_to.driver}-{number:06d}.jsonl" in names for number in range(4)] == [
            True
        ] * 4
    assert told(folder) == ["step", "step", "step", "render-done"] * 2


def test_torn_and_foreign_lines_are_left_out(folder: str) -> None:
    with Journal(folder) as told_to:
        told_to.tell("one")
    events = Path(folder) / "events"
    (events / "zz-000001.jsonl").write_bytes(b'{"event": "two"}\n[1]\n{"even\n\xff\xfe\n{}\n')
    (events / "notes.txt").write_text('{"event": "three"}')
    assert told(folder) == ["one", "render-done", "two"]


def test_the_heartbeat_says_how_far_it_is(folder: str) -> None:
    with Journal(folder, output="v.mp4", frames=100) as told_to:
        assert is_alive(read_heartbeat(folder))
        told_to.status(stage="rendering", frames_done=40)
        told_to.beat()
        beat = read_heartbeat(folder)
        assert beat is not None
        assert (beat["output"], beat["frames"], beat["frames_done"]) == ("v.mp4", 100, 40)
        assert (beat["state"], beat["driver"]) == ("running", told_to.driver)
    last = read_heartbeat(folder)
    assert last is not None
    assert last["state"] == "done"
    assert not is_alive(last)


@pytest.mark.parametrize(
    ("error", "state"), [(ValueError("on purpose"), "failed"), (KeyboardInterrupt(), "stopped")]
)
def test_how_it_ended_is_told(folder: str, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), Journal(folder):
        raise error
    beat = read_heartbeat(folder)
    assert beat is not None
    assert beat["state"] == state
    assert beat.get("error") == ("on purpose" if state == "failed" else None)
    assert told(folder) == [f"render-{state}"]


def test_a_driver_that_was_not_heard_of_for_a_minute_is_dead() -> None:
    def beat(seconds: float) -> dict[str, str]:
        then = datetime.now(UTC) - timedelta(seconds=seconds)
        return {"state": "running", "time": then.isoformat()}

    assert is_alive(beat(50))
    assert not is_alive(beat(70))
    assert not is_alive(None)
    assert not is_alive({"state": "running"})
    assert not is_alive({"state": "running", "time": "yesterday"})
    assert not is_alive({"state": "running", "time": "0001-01-01T00:00:00+14:00"})
    assert age_s(beat(70)) == pytest.approx(70, abs=5)


def test_it_beats_while_it_lives(folder: str, quick: None) -> None:
    with Journal(folder):
        first = read_heartbeat(folder)
        assert first is not None
        pause = threading.Event()
        for _ in range(1000):
            beat = read_heartbeat(folder)
            if beat is not None and beat["time"] != first["time"]:
                break
            pause.wait(0.01)
        else:
            pytest.fail("it was not heard of again")


def test_a_storage_that_does_not_answer_costs_no_event(
    folder: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LocalStorage.write
    refused = threading.Event()

    def refuse(self: LocalStorage, uri: str, data: bytes) -> None:
        if uri.endswith(".jsonl"):
            refused.set()
            raise StorageError("writing: on purpose")
        plain(self, uri, data)

    with Journal(folder) as told_to:
        monkeypatch.setattr(LocalStorage, "write", refuse)
        told_to.tell("one")
        assert refused.wait(10)
        monkeypatch.setattr(LocalStorage, "write", plain)
        told_to.tell("two")
    assert told(folder) == ["one", "two", "render-done"]


def test_a_storage_that_never_answers_does_not_fill_the_memory(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_WAITING", 10)
    with Journal(folder) as told_to:
        for number in range(25):
            told_to.tell("step", number=number)
    events = list(read_events(folder))
    assert events[0]["event"] == "events-dropped"
    assert events[0]["count"] == 17
    assert [event["number"] for event in events[1:-1]] == list(range(16, 25))


def test_the_heartbeats_file_is_frozen(folder: str) -> None:
    with Journal(folder, render_id="r", output="v.mp4"):
        path = Path(folder) / "heartbeat.json"
        fields = set(json.loads(path.read_text()))
    assert fields >= {"version", "render_id", "driver", "host", "pid", "started", "time", "state"}


def test_what_is_said_to_people_is_read_line_by_line(folder: str, quick: None) -> None:
    with Journal(folder, "job") as told_to:
        told_to.say("listening\nto two lines")
        logs = Path(folder) / "logs"
        pause = threading.Event()
        while not logs.is_dir() or not list(logs.iterdir()):
            assert not pause.wait(0.01)
        told_to.say("red \x1b[31m")
    first, second, third = read_log(folder)
    assert [line.split("  ", 1)[1] for _, line in (first, second, third)] == [
        "listening", "to two lines", "red \x1b[31m",
    ]  # fmt: skip
    assert list(read_log(folder, after=second[0])) == [third], "follow reads only what is new"


def test_whoever_looks_is_asked_again_and_again(folder: str, quick: None) -> None:
    seen = threading.Semaphore(0)
    with Journal(folder, "job", look=seen.release):
        for _ in range(3):
            assert seen.acquire(timeout=10)
    assert [event["event"] for event in read_events(folder)] == ["job-started", "job-done"]


def test_what_cannot_be_looked_for_or_written_does_not_stop_the_heart(
    folder: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job would be lost to all who watch, and be repeated beside itself."""
    plain = LocalStorage.write

    def refuse(self: LocalStorage, uri: str, data: bytes) -> None:
        if "heartbeat" not in uri:
            raise StorageError("writing: on purpose")
        plain(self, uri, data)

    def look() -> None:
        raise StorageError("reading: on purpose")

    monkeypatch.setattr(LocalStorage, "write", refuse)
    with Journal(folder, "job", look) as told_to:
        told_to.say("something")
        first, pause = read_heartbeat(folder), threading.Event()
        for _ in range(1000):
            if read_heartbeat(folder) != first:
                break
            pause.wait(0.01)
        else:
            pytest.fail("it was not heard of again")
