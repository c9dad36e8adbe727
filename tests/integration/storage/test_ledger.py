"""The ledger of an archive: what it says of a show is believed, on a disk as in a bucket."""

import json
from dataclasses import asdict, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asha_ray.errors import ManifestError, NotFoundError, StorageError
from asha_ray.storage import base, join, ledger, ledger_index
from asha_ray.storage.ledger import Ledger, ShowRecord, decode_record, encode_record
from asha_ray.storage.ledger_index import Stored

IDS = tuple(f"{number:032x}" for number in range(40))
RECORD = ShowRecord(
    show_id=IDS[0],
    state="done",
    key="2023/Höhle, Folge 1.mp3",
    source="123:abc",
    settings="f" * 64,
    time="2026-11-25T21:55:01+00:00",
    attempts=2,
    reason="",
    show="Höhle",
    title="Folge 1",
    artist="DJ A",
    album="Höhle 2023",
    date="2023-05-01",
    source_bytes=123,
    duration_s=3600.5,
    tempo=120.25,
    loudness_lufs=-14.5,
    sections=(0.0, 10.5),
    chapters=((0.0, "Anfang"), (600.0, "Ende")),
    output="2023/Folge 1.mp4",
    files=("2023/Folge 1.mp4", "2023/Folge 1.jpg"),
    work="s3://b/out/.asha",
    render_id="a" * 40,
    frames=216_030,
    fps="60",
    size=(1920, 1080),
    chunks=361,
    reused_chunks=1,
    digests={"audio": "1" * 64},
    quality={"frames": 216_030, "flashes": []},
    render_s=12.5,
    wall_s=100.0,
)


class Spy:
    """Counts what a ledger reads one by one."""

    def __init__(self, inner):
        self.inner, self.read_uris = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def read(self, uri):
        self.read_uris.append(uri)
        return self.inner.read(uri)


@pytest.fixture
def books(place):
    return Ledger(place.root)


def add(books, *ids, **changes):
    for show_id in ids:
        books.write(replace(RECORD, show_id=show_id, **changes))


def spoil(books, place, show_id, content):
    place.storage.write(join(books.folder, "shows", f"{show_id}.json"), content)


def reading(books, known=None):
    """All records, and of how many the file was read."""
    spy = books._storage = Spy(base.storage_of(books.folder))
    records = books.read_all(known)
    return records, len(spy.read_uris)


def test_a_record_is_read_as_it_was_written(books):
    with pytest.raises(NotFoundError):
        books.read(RECORD.show_id)
    books.write(RECORD)
    assert books.read(RECORD.show_id) == RECORD


def test_every_field_differs_from_its_default():
    """Else a field that is not kept would pass the test above."""
    plain = ShowRecord(RECORD.show_id, "done")
    same = [
        item.name
        for item in fields(plain)
        if getattr(plain, item.name) == getattr(RECORD, item.name)
    ]
    assert same == ["show_id", "state", "reason"]


def test_what_json_cannot_hold_is_left_out_and_the_rest_is_kept():
    """Silence is infinitely quiet; a record that cannot be read makes its show be done for ever."""
    odd = replace(
        RECORD, loudness_lufs=float("-inf"), title="half \ud83d", quality={"peak": float("nan")}
    )
    kept = decode_record(encode_record(odd), odd.show_id, "x")
    assert kept == replace(odd, loudness_lufs=None, title="half ?", quality={"peak": None})


def text(**changes):
    return json.dumps({"version": 1, **asdict(RECORD), **changes}).encode()


DAMAGED = {
    "empty": b"",
    "torn": text()[:-9],
    "list": b"[]",
    "no version": b"{}",
    "deep": b"[" * 100_000,
    "large": b" " * ledger.MAX_RECORD_BYTES + text(),
    "state": text(state="fine"),
    "type": text(frames="many"),
    "not a number": text(duration_s=float("nan")),
    "huge number": text().replace(b"3600.5", b"1e999"),
    "huge quality": text(quality={"a": [1.5]}).replace(b"1.5", b"1e999"),
    "other show": text(show_id=IDS[1]),
    "attempts": text(attempts=2**31),
    "chunks": text(chunks=-1),
    "size": text(size=[2**40, 1]),
    "frames": text(frames=2**70),
    "bytes": text(source_bytes=2**63),
    "centuries": text(duration_s=1e10),
    "digits": text(tempo=10**400),
    "digits of quality": text(quality={"decoded": 2**70}),
    "digits in quality": text(quality={"black": [[0, 10**400]]}),
    "outside": text(output="../../etc/passwd"),
    "file outside": text(files=["/etc/passwd"]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_told_with_its_remedy(content):
    with pytest.raises(ManifestError, match=r"record x: it is damaged \(.+\); delete it, and the"):
        decode_record(content, RECORD.show_id, "x")


def test_a_newer_record_is_not_taken_for_damaged(books, place):
    """Else an older asha-ray would do shows again that a newer one has done."""
    spoil(books, place, IDS[0], text(version=2))
    for reads in (lambda: books.read(IDS[0]), books.read_all):
        with pytest.raises(ManifestError, match=r"of version 2, .* use the asha-ray that wrote it"):
            reads()


def test_what_would_be_too_much_loses_its_last_chapters(books):
    """A record that is refused when it is read makes its show be done again by every run."""
    many = tuple((float(number), "夜" * 500) for number in range(1000))
    books.write(replace(RECORD, chapters=many))
    kept = books.read(RECORD.show_id)
    assert kept == replace(RECORD, chapters=many[: len(kept.chapters)])
    assert ledger.MAX_RECORD_BYTES - 3000 < len(encode_record(kept)) <= ledger.MAX_RECORD_BYTES
    assert encode_record(kept).decode().count("夜") == 500 * len(kept.chapters)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reason": "x" * ledger.MAX_RECORD_BYTES}, "larger than 256 kB"),
        ({"attempts": 2**40}, "attempts: Input should be less"),
        ({"quality": {"decoded": 2**70}}, "what is no number"),
        ({"output": "../x.mp4"}, "does not lie below the output"),
    ],
    ids=["large", "number", "quality", "outside"],
)
def test_what_could_not_be_read_is_not_written(books, changes, reason):
    books.write(RECORD)
    with pytest.raises(ManifestError, match=f"writing the record of show {IDS[0]}: .*{reason}"):
        books.write(replace(RECORD, **changes))
    assert books.read(RECORD.show_id) == RECORD


@pytest.mark.parametrize("show_id", ["../x", "", "a/b"])
def test_a_show_id_stays_in_the_ledger(books, show_id):
    with pytest.raises(StorageError, match="it is no name"):
        books.read(show_id)


def test_a_record_that_is_too_large_is_not_read(books, place, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_RECORD_BYTES", 100)
    spoil(books, place, IDS[0], b" " * 101)
    with pytest.raises(ManifestError, match="it has 101 bytes, too many"):
        books.read(IDS[0])
    records, num_read = reading(books)
    assert (list(records), list(records.damaged), num_read) == ([], [IDS[0]], 0)


def test_the_index_saves_reading_what_has_not_changed(books, place):
    """Of 100,000 records a bucket gives 50 a second."""
    add(books, *IDS[:5])
    records, num_read = reading(books)
    assert (set(records), num_read) == (set(IDS[:5]), 5)
    books.write_index(records)

    add(books, IDS[1], state="failed", reason="it is no sound")
    add(books, IDS[5])
    place.storage.delete(join(books.folder, "shows", f"{IDS[0]}.json"))
    records, num_read = reading(Ledger(books.folder.removesuffix("/.ledger")))
    assert num_read == 2
    assert set(records) == set(IDS[1:6])
    assert records[IDS[1]].reason == "it is no sound"
    assert records[IDS[2]] == replace(RECORD, show_id=IDS[2])
    assert records.get(IDS[0]) is None


def test_what_was_read_before_is_not_read_again(books):
    """A long run writes the index now and then, and must not read all that it has done."""
    add(books, *IDS[:3])
    known, _ = reading(books)
    add(books, IDS[3])
    records, num_read = reading(books, known)
    assert (set(records), num_read) == (set(IDS[:4]), 1)


def test_a_damaged_record_is_left_out_and_named(books, place):
    add(books, *IDS[:3])
    spoil(books, place, IDS[1], b"{")
    records, _ = reading(books)
    assert set(records) == {IDS[0], IDS[2]}
    assert list(records.damaged) == [IDS[1]]
    assert "EOF" in records.damaged[IDS[1]]
    books.write_index(records)
    assert list(books.read_all().damaged) == [IDS[1]], "it is not in the index, and told again"


def test_what_is_no_record_is_not_taken_for_one(books, place):
    add(books, IDS[0])
    for name in ("notes.txt", "0.json", f"{IDS[1]}.json.bak", f"deep/{IDS[2]}.txt"):
        place.storage.write(join(books.folder, "shows", name), b"x")
    records = books.read_all()
    assert (set(records), records.damaged) == ({IDS[0]}, {})


def _parquet(path, record=None, nullable=False, version=b"1", use_dictionary=False, **columns):
    content = encode_record(RECORD) if record is None else record
    data = {"show_id": [IDS[0]], "version": ["1"], "record": [content], **columns}
    arrays = {name: pa.array(column) for name, column in data.items()}
    fields = [pa.field(name, array.type, nullable) for name, array in arrays.items()]
    table = pa.table(arrays, schema=pa.schema(fields, metadata={b"asha-ray": version}))
    pq.write_table(table, path, use_dictionary=use_dictionary)
    return path.read_bytes()


FALSE_INDEXES = {
    "nothing": lambda path: b"",
    "text": lambda path: b"no parquet",
    "torn": lambda path: _parquet(path)[:-10],
    "newer": lambda path: _parquet(path, version=b"2"),
    "columns": lambda path: _parquet(path, more=[1]),
    "types": lambda path: _parquet(path, record=10**12),
    "nulls": lambda path: _parquet(path, nullable=True, version=b"1"),
    "packed": lambda path: _parquet(path, use_dictionary=True),
    "record": lambda path: _parquet(path, record=b"{}"),
}


def test_a_sound_index_counts(tmp_path):
    """Else the false ones below might count for nothing for another reason."""
    (tmp_path / "index").write_bytes(_parquet(tmp_path / "x.parquet"))
    assert ledger_index.read_index(str(tmp_path / "index")) == {
        IDS[0]: Stored("1", encode_record(RECORD))
    }


@pytest.mark.parametrize("make", FALSE_INDEXES.values(), ids=FALSE_INDEXES)
def test_a_damaged_index_counts_for_nothing(tmp_path, make):
    books = Ledger(str(tmp_path))
    add(books, IDS[0])
    base.storage_of(books.folder).write(books._index_uri, make(tmp_path / "x.parquet"))
    assert books._read_index() == {}
    records, num_read = reading(books)
    assert (set(records), num_read) == ({IDS[0]}, 1)


def test_an_index_that_unpacks_to_too_much_counts_for_nothing(tmp_path, monkeypatch):
    uri = str(tmp_path / "index.parquet")
    ledger_index.write_index(uri, {IDS[0]: Stored("1", b" " * 10_000)})
    assert len(ledger_index.read_index(uri)) == 1
    monkeypatch.setattr(ledger_index, "MAX_BYTES", 9_000)
    assert ledger_index.read_index(uri) == {}


def test_an_index_of_several_row_groups_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_index, "ROWS_AT_ONCE", 3)
    stored = {show_id: Stored(f"v {show_id}", show_id.encode()) for show_id in IDS}
    ledger_index.write_index(str(tmp_path / "i"), stored)
    assert ledger_index.read_index(str(tmp_path / "i")) == stored


def test_a_name_is_one_shows(books):
    assert books.name_holder("a.mp4") is None
    assert books.claim_name("a.mp4", IDS[0])
    assert books.claim_name("a.mp4", IDS[0]), "a second run goes on with what it has"
    assert not books.claim_name("a.mp4", IDS[1])
    assert books.claim_name("é/x.mp4", IDS[1])
    books.release_name("a.mp4", IDS[1])
    assert books.holds_name("a.mp4", IDS[0])
    books.release_name("a.mp4", IDS[0])
    assert books.claim_name("a.mp4", IDS[1])


def test_all_claims_are_known_by_whose_they_are(books):
    """A show that has no record is found by nothing else."""
    assert books.claims() == {}
    for name, show_id in (("a.mp4", IDS[0]), ("b.mp4", IDS[1]), ("c.mp4", IDS[0])):
        books.claim_name(name, show_id)
    looked = []
    claims = books.claims(on_look=lambda: looked.append(1))
    assert (sorted(claims.values()), len(looked)) == ([IDS[0], IDS[0], IDS[1]], 3)
    for uri in [uri for uri, show_id in claims.items() if show_id == IDS[0]]:
        books._storage.delete(uri)
    holders = [books.name_holder(name) for name in ("a.mp4", "b.mp4", "c.mp4")]
    assert holders == [None, IDS[1], None]


def test_of_two_that_claim_a_name_at_once_one_is_left(books, place):
    """Both may be told that they have it: before it publishes, one of them hears the truth."""
    other = Ledger(place.root)
    claims = []

    class Late(Spy):
        """Lets the other claim the name between looking and writing."""

        def write(self, uri, data):
            claims.append(other.claim_name("a.mp4", IDS[1]))
            self.inner.write(uri, data)

    books._storage = Late(books._storage)
    claims.append(books.claim_name("a.mp4", IDS[0]))
    assert claims == [True, True]
    assert [books.holds_name("a.mp4", show_id) for show_id in IDS[:2]] == [True, False]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"show_id": 3}', b'{"show_id": "../x"}', b"[" * 9**5]
)
def test_a_damaged_claim_is_nobodys(tmp_path, content):
    books = Ledger(str(tmp_path))
    books.claim_name("a.mp4", IDS[0])
    base.storage_of(books.folder).write(books._name_uri("a.mp4"), content)
    assert books.name_holder("a.mp4") is None
    assert IDS[0] not in books.claims().values()
    assert books.claim_name("a.mp4", IDS[1])


def test_the_latest_runs_come_first(books, place, monkeypatch):
    monkeypatch.setattr(ledger, "MAX_RUNS", 3)
    for run in ("20261125-1", "20261126-1", "20261126-2", "20261124-1"):
        uri = join(books.run_folder(run), "heartbeat.json")
        place.storage.write(uri, json.dumps({"state": "done", "run": "../x"}).encode())
    place.storage.write(join(books.run_folder("20261127-1"), "events", "x"), b"begins")
    assert [beat["run"] for beat in books.runs()] == ["20261126-2", "20261126-1"]


@pytest.mark.parametrize("name", ["plan", "spec"])
def test_what_was_planned_and_asked_for_is_kept(books, place, name):
    read, write = getattr(books, f"read_{name}"), getattr(books, f"write_{name}")
    assert read() is None
    write({"shows": 3, "names": "{path}"})
    assert read() == {"shows": 3, "names": "{path}"}
    file = {"plan": "plan.json", "spec": "archive.json"}[name]
    for content in (b"{", b"[]", b"[" * 100_000):
        place.storage.write(join(books.folder, file), content)
        with pytest.raises(ManifestError, match=f"{file}: it is damaged .* delete it"):
            read()
