"""Stems in a work root: a part is there when its record and all its files are."""

import json
from pathlib import Path

import pytest

from asha_ray.errors import StorageError
from asha_ray.storage.stems import StemPart, StemStore, stem_file


@pytest.fixture
def store(tmp_path: Path) -> StemStore:
    return StemStore(str(tmp_path / "work"), "k" * 40)


def commit(store: StemStore, number: int, tmp_path: Path) -> StemPart:
    paths = {}
    for stem in ("drums", "bass"):
        paths[stem] = tmp_path / f"{stem}.flac"
        paths[stem].write_bytes(f"{stem} {number}".encode())
    files = {stem: stem_file(path) for stem, path in paths.items()}
    part = StemPart(number, 100 * number, 100 * number + 100, 44_100, 2, files)
    store.commit(part, paths)
    return part


def test_a_part_is_found_as_it_was_stored(store: StemStore, tmp_path: Path) -> None:
    assert store.find(3) is None
    part = commit(store, 3, tmp_path)
    assert store.find(3) == part
    store.fetch(part, "bass", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"bass 3"


def test_a_track_is_there_when_all_its_parts_are(store: StemStore, tmp_path: Path) -> None:
    parts = [commit(store, number, tmp_path) for number in range(3)]
    assert store.all_parts() is None, "nobody said that there are no more"
    assert store.num_replaced() == 0
    store.finish(3, num_replaced=7)
    assert store.all_parts() == parts
    assert store.num_replaced() == 7
    (Path(store.uri) / "00001-bass.flac").unlink()
    assert store.all_parts() is None


def test_a_changed_file_is_told_and_its_part_forgotten(store: StemStore, tmp_path: Path) -> None:
    part = commit(store, 0, tmp_path)
    store.finish(1)
    (Path(store.uri) / "00000-drums.flac").write_bytes(b"drums X")
    assert store.find(0) is not None, "its size is still right"
    with pytest.raises(StorageError, match="has changed since it was separated"):
        store.fetch(part, "drums", tmp_path / "copy")
    assert store.find(0) is None
    assert store.all_parts() is None


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        "7",
        '{"number": 0}',
        json.dumps(
            {
                **dict.fromkeys(("number", "start", "stop", "sample_rate", "bits"), 0),
                "files": {"../../secret": {"sha256": "", "num_bytes": 1}},
            }
        ),
    ],
    ids=["empty", "torn", "list", "number", "partial", "leaves its folder"],
)
def test_a_record_that_cannot_be_used_counts_as_none(store: StemStore, record: str) -> None:
    folder = Path(store.uri)
    folder.mkdir(parents=True)
    (folder / "00000.json").write_text(record)
    (folder / "track.json").write_text(record)
    assert store.find(0) is None
    assert store.all_parts() is None


@pytest.mark.parametrize(
    "record",
    ["[" * 200_000, " " * (1 << 20) + "{}"]
    + [
        '{"number": 0, "start": 0, "stop": 1, "sample_rate": 44100, "bits": 1, "files": {}, '
        f"{lie}}}"
        for lie in (
            '"stop": Infinity',
            '"stop": -1',
            '"sample_rate": 10000000000000000000',
            '"bits": 999999999',
            '"bits": -5000',
        )
    ],
    ids=lambda record: record.strip()[-24:],
)
def test_a_hostile_record_is_none(store: StemStore, record: str) -> None:
    """A number out of bounds would be an OverflowError where the stem is scaled."""
    (Path(store.uri)).mkdir(parents=True)
    (Path(store.uri) / "00000.json").write_text(record)
    (Path(store.uri) / "track.json").write_text('{"parts": 1000000000000000}')
    assert store.find(0) is None
    assert store.all_parts() is None
