"""A second run does what is new, changed or failed, and nothing else."""

from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from asha_ray.errors import ManifestError, NotFoundError, SpecError
from asha_ray.farm.archive import todo
from asha_ray.farm.archive.rules import SettingsDigests, model_versions
from asha_ray.farm.archive.scan import scan, show_id_of
from asha_ray.farm.archive.todo import find_todo, source_of
from asha_ray.progress import NullProgress
from asha_ray.storage.ledger import Ledger, ShowRecord


class Notes(NullProgress):
    def __init__(self):
        self.notes, self.counts = [], {}

    def stage(self, name, total=None, unit=""):
        self.counts[name] = 0

    def advance(self, count=1, detail=""):
        self.counts[list(self.counts)[-1]] += count

    def note(self, message):
        self.notes.append(message)


class Station:
    """An archive whose shows can be said to have ended in one way or another."""

    def __init__(self, archive):
        self.archive, self.progress = archive, Notes()
        self.ledger = Ledger(str(archive.output))

    def end(self, key, state="done", spec=None, **changes):
        """Write a record of a show as it is now, and its video where it is done."""
        spec = spec or self.archive.spec()
        (source,) = (s for s in scan(spec, NullProgress()).sources if s.key == key)
        record = ShowRecord(
            show_id=show_id_of(key),
            state=state,
            key=key,
            source=source_of(source),
            settings=SettingsDigests(spec, model_versions(spec)).of(source),
            attempts=2,
            output=f"{key}.mp4",
        )
        self.ledger.write(replace(record, **changes))
        if state == "done":
            for name in (f"{key}.mp4", f"{key}.mp4.json"):
                self.archive.put(f"../videos/{name}")

    def look(self, **fields):
        return find_todo(self.archive.spec(**fields), self.ledger, self.progress)

    def why(self, **fields):
        return {item.source.key: item.why for item in self.look(**fields).todo}


@pytest.fixture
def station(archive):
    for key in ("a.mp3", "b.mp3", "(c).mp3"):
        archive.put(key, key.encode() * 3)
    return Station(archive)


def test_a_first_run_does_all(station):
    found = station.look()
    assert [(item.source.key, item.why, item.before) for item in found.todo] == [
        ("(c).mp3", "new", None), ("a.mp3", "new", None), ("b.mp3", "new", None),
    ]  # fmt: skip
    assert [item.show_id for item in found.todo] == [show_id_of(i.source.key) for i in found.todo]
    assert (found.done, found.parked, found.forgotten, found.refused) == (0, [], 0, [])
    assert (found.num_shows, found.num_bytes) == (3, 3 * (5 + 5 + 7))


def test_what_is_done_is_not_done_again(station):
    """Names that come before a dot are as much names as others."""
    for key in ("a.mp3", "b.mp3", "(c).mp3"):
        station.end(key)
    found = station.look()
    assert (found.todo, found.done, len(found.records)) == ((), 3, 3)


@pytest.mark.parametrize("index", [False, True], ids=["one by one", "index"])
def test_it_is_the_same_with_an_index(station, index):
    station.end("a.mp3")
    station.end("b.mp3", "failed", reason="it is no sound")
    if index:
        station.ledger.write_index(station.ledger.read_all())
    found = station.look()
    assert [(item.source.key, item.why) for item in found.todo] == [
        ("(c).mp3", "new"), ("b.mp3", "failed"),
    ]  # fmt: skip
    before = found.todo[1].before
    assert before is not None
    assert (before.attempts, before.reason) == (2, "it is no sound")
    assert found.done == 1


@pytest.mark.parametrize("state", ["done", "failed", "parked"])
@pytest.mark.parametrize("what", ["source", "settings", "sidecar"])
def test_what_has_changed_is_done_again(station, state, what):
    station.end("a.mp3", state)
    if what == "source":
        station.archive.put("a.mp3", b"another take")
    if what == "sidecar":
        station.archive.put("a.mp3.asha.yaml", b"title: x")
    crf = {"video": {"crf": 30}} if what == "settings" else {}
    assert station.why(**crf)["a.mp3"] == "changed"


def test_a_changed_rule_does_only_its_shows_again(station):
    for key in ("a.mp3", "b.mp3", "(c).mp3"):
        station.end(key)
    rule = {"match": {"path": "b*"}, "video": {"crf": 30}}
    assert station.why(rules=[rule]) == {"b.mp3": "changed"}


@pytest.mark.parametrize("name", ["a.mp3.mp4", "a.mp3.mp4.json"])
def test_a_video_that_is_gone_is_made_again(station, name):
    station.end("a.mp3")
    (station.archive.output / name).unlink()
    assert station.why()["a.mp3"] == "gone"


def test_what_is_parked_stays_so_and_is_told(station):
    station.end("a.mp3", "parked", reason="it is no sound")
    found = station.look()
    assert [record.reason for record in found.parked] == ["it is no sound"]
    assert [item.source.key for item in found.todo] == ["(c).mp3", "b.mp3"]


def test_what_is_forgotten_is_never_done(station):
    station.end("a.mp3", "forgotten", source="", settings="")
    station.archive.put("a.mp3", b"another take")
    found = station.look(video={"crf": 30})
    assert found.forgotten == 1
    assert [item.source.key for item in found.todo] == ["(c).mp3", "b.mp3"]


def test_shows_whose_sound_is_gone_are_kept(station):
    """An archive of videos may outlive the shows."""
    station.end("a.mp3")
    (station.archive.source / "a.mp3").unlink()
    found = station.look()
    assert (found.num_shows, found.done) == (2, 0)
    assert found.records[show_id_of("a.mp3")].key == "a.mp3"
    assert (station.archive.output / "a.mp3.mp4").exists()


def test_a_limit_is_of_what_is_to_be_done(station):
    station.end("(c).mp3")
    found = station.look(limit=1, order="path")
    assert [item.source.key for item in found.todo] == ["a.mp3"]
    assert (found.num_shows, found.done) == (3, 1)


def test_a_show_whose_record_is_damaged_is_done_again_and_told(station):
    station.end("a.mp3")
    path = f"../videos/.ledger/shows/{show_id_of('a.mp3')}.json"
    station.archive.put(path, b"{")
    assert station.why()["a.mp3"] == "new"
    (note,) = station.progress.notes
    assert f"the record of show {show_id_of('a.mp3')} is damaged" in note


def test_a_ledger_of_a_newer_version_stops_all(station):
    """Else what a newer asha-ray has done would be done again, and its records written over."""
    station.archive.put(f"../videos/.ledger/shows/{show_id_of('a.mp3')}.json", b'{"version": 2}')
    with pytest.raises(ManifestError, match="version 2"):
        station.look()


def test_a_wrong_rule_is_told_before_anything_is_looked_at(station):
    with pytest.raises(SpecError, match=r"rules\.0\.video\.crf"):
        station.look(source="/nowhere", rules=[{"video": {"crf": 99}}])


def test_what_is_empty_is_told(station):
    station.archive.put("d.mp3", b"")
    assert station.look().refused == [("d.mp3", "it is empty")]


def test_a_source_that_is_none_stops_the_other_lists(station):
    """Else a wrong path would be told minutes late."""
    station.end("a.mp3")
    with pytest.raises(NotFoundError, match="there is no such folder"):
        station.look(source="/nowhere")
    counts = [todo._Count(), todo._Count()]
    counts[0].is_unwanted = True
    with pytest.raises(CancelledError):
        station.ledger.read_all(on_look=counts[0])
    assert todo._videos(station.archive.spec(), counts[1]) == {"a.mp3.mp4", "a.mp3.mp4.json"}
    assert counts[1].looked_at == 2


def test_progress_is_told_in_order(station):
    station.end("a.mp3")
    station.look()
    assert station.progress.counts == {
        "finding shows": 3,
        "reading the ledger": 2,
        "finding videos": 2,
    }
