"""The work root: a segment is there when its record says so, and is what the record says."""

import json
from fractions import Fraction

import pytest

from asha_ray.errors import SegmentError
from asha_ray.storage.keys import file_digest
from asha_ray.storage.manifest import to_plain
from asha_ray.storage.work import WorkRoot, sweep_work
from asha_ray.values import Chunk, EncoderSettings, Manifest, Numerics, Segment

CHUNK = Chunk(0, 30, 90, "abc")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def work(folder):
    return WorkRoot(str(folder))


@pytest.fixture
def segment_file(tmp_path):
    path = tmp_path / "new.mp4"
    path.write_bytes(b"video" * 100)
    return path


@pytest.fixture
def committed(work, segment_file):
    segment = Segment("abc", file_digest(segment_file), 500, 60, 1.23456, "here")
    work.upload_segment(segment_file, segment)
    work.write_record(segment)
    return segment


def found(work):
    """The segment that is there, `damaged`, or None."""
    result = work.find_segments([CHUNK])
    return "damaged" if result.damaged else result.segments.get("abc")


def test_a_committed_segment_is_found_as_it_was_measured(work, committed):
    segment = found(work)
    assert (segment.sha256, segment.num_bytes, segment.num_frames) == (committed.sha256, 500, 60)
    assert segment.seconds == pytest.approx(1.23456, abs=1e-3)
    assert segment.worker == "here"


def test_all_chunks_of_a_render_are_looked_for(work, committed):
    others = [Chunk(index, 0, 60, f"other{index}") for index in range(1, 200)]
    result = work.find_segments([*others, CHUNK])
    assert (list(result.segments), result.damaged) == (["abc"], [])


def test_the_layout_is_frozen(work, committed, folder):
    """An old work root must still be of use."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert names == ["segments/abc.json", "segments/abc.mp4"]
    record = json.loads((folder / "segments/abc.json").read_text())
    assert record == {
        "sha256": committed.sha256,
        "bytes": 500,
        "frames": 60,
        "seconds": 1.235,
        "worker": "here",
    }
    assert work.features_uri("k") == f"{folder}/features/k.npz"
    assert work.manifest_uri("r") == f"{folder}/renders/r/render.json"


def test_a_segment_without_its_record_is_there_for_nobody(work, segment_file):
    """A worker killed between the two has left a file, and said nothing."""
    work.upload_segment(segment_file, Segment("abc", "0" * 64, 500, 60, 1.0, "here"))
    assert found(work) is None


def _record(folder):
    return folder / "segments" / "abc.json"


def _edited(folder, **changes):
    record = json.loads(_record(folder).read_text()) | changes
    kept = {key: value for key, value in record.items() if value is not None}
    _record(folder).write_text(json.dumps(kept))


TORN = {
    "other-frames": lambda folder: _edited(folder, frames=61),
    "endless-number": lambda folder: _record(folder).write_text(
        '{"sha256": "a", "bytes": 5, "frames": 1e999, "seconds": 1, "worker": "w"}'
    ),
    "endless-record": lambda folder: _record(folder).write_text("[" * 100_000),
    "empty-record": lambda folder: _record(folder).write_bytes(b""),
    "half-a-record": lambda folder: _record(folder).write_text('{"sha256": "ab'),
    "no-text": lambda folder: _record(folder).write_bytes(b"\xff\xfe\0\1"),
    "a-list": lambda folder: _record(folder).write_text("[1, 2]"),
    "a-number": lambda folder: _record(folder).write_text("7"),
    "null": lambda folder: _record(folder).write_text("null"),
    "field-missing": lambda folder: _edited(folder, frames=None),
    "field-no-number": lambda folder: _edited(folder, bytes="many"),
    "no-segment": lambda folder: (folder / "segments" / "abc.mp4").unlink(),
    "shorter-segment": lambda folder: (folder / "segments" / "abc.mp4").write_bytes(b"video"),
}


@pytest.mark.parametrize("kind", TORN)
def test_what_is_not_whole_is_damaged(work, committed, folder, kind):
    """The chunk is rendered again, a person is told, and the render goes on."""
    TORN[kind](folder)
    assert found(work) == "damaged"


def test_a_segment_is_fetched_and_checked(work, committed, tmp_path):
    work.fetch_segment(committed, tmp_path / "fetched.mp4")
    assert (tmp_path / "fetched.mp4").read_bytes() == b"video" * 100


def test_a_segment_that_changed_is_refused(work, committed, folder, tmp_path):
    """The same length with another byte: only its hash can tell."""
    (folder / "segments" / "abc.mp4").write_bytes(b"video" * 99 + b"vide0")
    assert found(work) not in (None, "damaged")
    with pytest.raises(SegmentError, match=r"abc\.mp4: it has changed since") as caught:
        work.fetch_segment(committed, tmp_path / "fetched.mp4")
    assert caught.value.chunk_ids == ("abc",)
    work.forget_segment("abc")
    assert found(work) is None


def test_a_segment_that_is_gone_is_refused_too(work, committed, folder, tmp_path):
    (folder / "segments" / "abc.mp4").unlink()
    with pytest.raises(SegmentError, match=r"abc\.mp4: it is gone"):
        work.fetch_segment(committed, tmp_path / "fetched.mp4")


def test_committing_twice_is_as_once(work, committed, segment_file):
    """Execution is at least once: a chunk may be finished by two workers."""
    work.upload_segment(segment_file, committed)
    work.write_record(committed)
    assert found(work).sha256 == committed.sha256


def test_what_a_killed_process_left_is_swept(work, committed, folder):
    torn = folder / "segments" / ".asha-1.tmp"
    torn.write_bytes(b"half")
    assert sweep_work(str(folder)) == 1
    assert not torn.exists()
    assert found(work).sha256 == committed.sha256
    assert sweep_work("s3://bucket/work") == 0


def test_a_manifest_is_plain_and_exact(work, folder):
    """Rates and durations as text fractions: a float would move the last frame."""
    manifest = Manifest(
        render_id="r",
        spec={"seed": 1},
        digests={"audio": "a"},
        fps=Fraction(30000, 1001),
        size=(64, 48),
        numerics=Numerics("cpu", "float32", True, 4, 2, "2.9.0"),
        encoder=EncoderSettings("libx264", 18, "veryfast", 2, "9.0"),
        start=3,
        num_frames=10,
        duration_s=Fraction(1001, 3000),
        chunks=(Chunk(0, 3, 8, "x"), Chunk(1, 8, 13, "y")),
    )
    work.write_manifest(manifest)
    stored = json.loads((folder / "renders/r/render.json").read_text())
    assert stored == json.loads(json.dumps(to_plain(manifest)))
    assert (stored["version"], stored["fps"], stored["duration_s"]) == (
        1,
        "30000/1001",
        "1001/3000",
    )
    assert stored["chunks"] == [[3, 8, "x"], [8, 13, "y"]]
    assert stored["numerics"]["batch_size"] == 4
