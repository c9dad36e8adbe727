"""The catalogue: every show is in it as it is, whatever its names are, but none that is gone."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from asha_ray.farm.archive import catalogue as module
from asha_ray.farm.archive.catalogue import SCHEMA, publish_catalogue, write_catalogue
from asha_ray.storage.ledger import ShowRecord
from tests.unit.farm.archive.fake_ledger import a_show

FULL = a_show(
    "Night/one.mp3",
    show="Night",
    artist="Ada",
    album="Live",
    date="2023-05-01",
    tempo=120.5,
    loudness_lufs=-14.2,
    sections=(0.0, 61.5),
    chapters=((0.0, "In"), (60.0, "Out")),
    render_id="r" * 40,
    files=("Night/one.mp4", "Night/one.vtt"),
    frames=108_000,
    fps="30000/1001",
    size=(1920, 1080),
    digests={"audio": "a" * 64, "model": "b" * 64, "video": "c" * 64},
    quality={
        "decoded": 107_999,
        "black": [[0.0, 2.0], [10.0, 11.5]],
        "frozen": [],
        "silent": [(1.0, 4.0)],
        "problems": ["a frame is missing"],
        "true_peak_dbfs": -1.5,
    },
    render_s=40.0,
    wall_s=50.0,
)


def rows(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return found


def test_a_show_is_told_in_full(tmp_path: Path) -> None:
    """Whoever asks the catalogue asks nobody else."""
    write_catalogue([FULL], tmp_path / "c.parquet")
    (row,) = rows(tmp_path / "c.parquet")
    assert row == {
        "show_id": FULL.show_id,
        "path": "Night/one.mp3",
        "state": "done",
        "reason": None,
        "show": "Night",
        "title": "one",
        "artist": "Ada",
        "album": "Live",
        "date": "2023-05-01",
        "duration_s": 3600.0,
        "tempo": 120.5,
        "loudness_lufs": -14.2,
        "true_peak_dbfs": -1.5,
        "sections": [0.0, 61.5],
        "chapters": [{"start_s": 0.0, "title": "In"}, {"start_s": 60.0, "title": "Out"}],
        "render_id": "r" * 40,
        "output": "Night/one.mp4",
        "files": ["Night/one.mp4", "Night/one.vtt"],
        "frames": 108_000,
        "fps": "30000/1001",
        "width": 1920,
        "height": 1080,
        "audio_sha256": "a" * 64,
        "model_sha256": "b" * 64,
        "video_sha256": "c" * 64,
        "decoded_frames": 107_999,
        "black_s": 3.5,
        "frozen_s": 0.0,
        "silent_s": 3.0,
        "problems": ["a frame is missing"],
        "attempts": 1,
        "render_s": 40.0,
        "wall_s": 50.0,
        "time": datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC),
    }


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    """A zero would count in somebody's mean."""
    parked = ShowRecord("1" * 32, "parked", key="a.mp3", time="when?", attempts=2, reason="torn")
    write_catalogue([parked], tmp_path / "c.parquet")
    (row,) = rows(tmp_path / "c.parquet")
    known = {name: value for name, value in row.items() if value not in (None, [])}
    assert known == {
        "show_id": "1" * 32,
        "path": "a.mp3",
        "state": "parked",
        "reason": "torn",
        "attempts": 2,
    }


@pytest.mark.parametrize(
    "quality",
    [
        {"black": "dark", "problems": 3, "decoded": "1"},
        {"black": [[1]], "silent": [["a", 2]]},
        {"black": [[0, 10**400]], "decoded": 2**70, "true_peak_dbfs": 10**400},
    ],
    ids=["other kinds", "torn spans", "no bounds"],
)
def test_a_check_that_says_nonsense_counts_for_nothing(
    tmp_path: Path, quality: dict[str, object]
) -> None:
    write_catalogue([a_show("a.mp3", quality=quality)], tmp_path / "c.parquet")
    (row,) = rows(tmp_path / "c.parquet")
    assert (row["black_s"], row["silent_s"], row["decoded_frames"]) == (None, None, None)
    assert (row["true_peak_dbfs"], row["problems"]) == (None, [])


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:00:00-14:00", "2023-13-01", "noon"]
)
def test_a_moment_that_is_none_is_null(tmp_path: Path, time: str) -> None:
    """One such record would leave a whole archive without its catalogue."""
    write_catalogue([a_show("a.mp3", time=time)], tmp_path / "c.parquet")
    (row,) = rows(tmp_path / "c.parquet")
    assert row["time"] is None


def test_rows_are_in_order_and_the_forgotten_have_none(tmp_path: Path) -> None:
    """What was taken down must be nowhere; the rest is found without sorting."""
    shows = [
        a_show("z.mp3", show="B", date="2020"),
        a_show("y.mp3", show="A", date="2021"),
        a_show("b.mp3", show="A", date="2020"),
        a_show("a.mp3", show="A", date="2020"),
        ShowRecord("f" * 32, "forgotten"),
    ]
    write_catalogue(shows, tmp_path / "c.parquet")
    assert [row["path"] for row in rows(tmp_path / "c.parquet")] == [
        "a.mp3",
        "b.mp3",
        "y.mp3",
        "z.mp3",
    ]


def test_a_name_that_is_no_text_does_not_spoil_the_rest(tmp_path: Path) -> None:
    """A disk's names are bytes; one that is no UTF-8 must not cost a station its catalogue."""
    write_catalogue([a_show("caf\udce9.mp3"), FULL], tmp_path / "c.parquet")
    assert [row["path"] for row in rows(tmp_path / "c.parquet")] == ["Night/one.mp3", "caf?.mp3"]


def test_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand rows at once would take gigabytes."""
    monkeypatch.setattr(module, "ROWS_IN_GROUP", 2)
    write_catalogue([a_show(f"{n}.mp3") for n in range(5)], tmp_path / "c.parquet")
    file = pq.ParquetFile(tmp_path / "c.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 2, 1]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_empty_archive_has_a_catalogue_too(tmp_path: Path) -> None:
    """Whoever reads it after the first run must find the columns."""
    uri = publish_catalogue([], str(tmp_path / "new"))
    assert uri == str(tmp_path / "new" / "catalogue.parquet")
    assert pq.read_schema(uri).equals(SCHEMA)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["catalogue.parquet"]


def test_the_columns_are_those_that_are_documented() -> None:
    """People's queries name them: this is a contract."""
    documented = [
        name.strip(" `")
        for line in (module.__doc__ or "").splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    ]
    assert documented == SCHEMA.names
