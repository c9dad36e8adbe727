"""A manifest is read back as it was written, and nothing else is taken for one."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asha_ray.errors import ManifestError
from asha_ray.storage.manifest import decode_manifest, encode_manifest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, EncoderSettings, Manifest, Numerics, Segment, plan_chunks

RATES = [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(60000, 1001)]


def manifest_of(
    start: int = 3, num_frames: int = 10, fps: Fraction = Fraction(60), chunk_s: float = 0.1
) -> Manifest:
    chunks = [
        replace(chunk, chunk_id=f"{chunk.start:040d}")
        for chunk in plan_chunks(start, num_frames, fps, chunk_s)
    ]
    return Manifest(
        render_id="r" * 40,
        spec={"seed": 1, "motion": {"name": "seed-linear"}},
        digests={"audio": "a"},
        fps=fps,
        size=(64, 48),
        numerics=Numerics("cpu", "float32", True, 4, 2, "2.9.0", "cpu-avx2"),
        encoder=EncoderSettings("libx264", 18, "veryfast", 2, "9.0"),
        start=start,
        num_frames=num_frames,
        duration_s=num_frames / fps - Fraction(1, 7000),
        chunks=tuple(chunks),
    )


@given(
    start=st.integers(0, 10**6),
    num_frames=st.integers(1, 5000),
    fps=st.sampled_from(RATES),
    chunk_s=st.floats(0.02, 100),
)
@settings(deadline=None)
def test_every_frame_is_in_exactly_one_chunk_and_a_manifest_comes_back_whole(
    start: int, num_frames: int, fps: Fraction, chunk_s: float
) -> None:
    manifest = manifest_of(start, num_frames, fps, chunk_s)

    frames = [frame for chunk in manifest.chunks for frame in range(chunk.start, chunk.stop)]
    assert frames == list(range(start, start + num_frames))
    assert [chunk.index for chunk in manifest.chunks] == list(range(len(manifest.chunks)))
    again = decode_manifest(encode_manifest(manifest), "m")
    assert again == manifest
    assert encode_manifest(again) == encode_manifest(manifest)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_subset_of_finished_chunks_is_found_again(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever was done when a driver died, the rest and no more is missing."""
    folder = tmp_path_factory.mktemp("work")
    manifest = manifest_of(num_frames=120)
    done = data.draw(st.sets(st.sampled_from(manifest.chunks)))
    work = WorkRoot(str(folder))
    segment_file = folder / "new.mp4"
    segment_file.write_bytes(b"video")
    for chunk in done:
        segment = Segment(chunk.chunk_id, "0" * 64, 5, chunk.num_frames, 1.0, "here")
        work.upload_segment(segment_file, segment)
        work.write_record(segment)

    found = work.find_segments(manifest.chunks)

    assert set(found.segments) == {chunk.chunk_id for chunk in done}
    assert found.damaged == []


def plain() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(encode_manifest(manifest_of()))
    return data


@pytest.mark.parametrize("version", [2, 99, "1.5", None])
def test_other_versions_are_refused_by_name(version: Any) -> None:
    with pytest.raises(ManifestError, match=rf"m: it is of version {version}, .* knows version 1"):
        decode_manifest(json.dumps(plain() | {"version": version}).encode(), "m")


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = plain()
    change(data)
    return json.dumps(data).encode()


BAD = {
    "empty": b"",
    "no-json": b"\xff\xfe",
    "a-list": b"[]",
    "deep": b"[" * 100_000,
    "no-version": edited(lambda data: data.pop("version")),
    "no-chunks": edited(lambda data: data.update(chunks=[])),
    "gap": edited(lambda data: data["chunks"].pop(0)),
    "short": edited(lambda data: data["chunks"].pop()),
    "overlap": edited(lambda data: data["chunks"].insert(1, data["chunks"][0])),
    "backwards": edited(lambda data: data["chunks"].reverse()),
    "empty-chunk": edited(lambda data: data["chunks"].insert(0, [3, 3, "a"])),
    "leaves-its-folder": edited(lambda data: data["chunks"][0].__setitem__(2, "../../etc/x")),
    "hidden": edited(lambda data: data["chunks"][0].__setitem__(2, ".x")),
    "endless-name": edited(lambda data: data["chunks"][0].__setitem__(2, "a" * 4000)),
    "render-id-leaves": edited(lambda data: data.update(render_id="../r")),
    "endless-number": edited(lambda data: data.update(fps="1e999999999")),
    "no-fraction": edited(lambda data: data.update(fps="1/0")),
    "endless-start": encode_manifest(manifest_of()).replace(b"3,\n", b"1e999,\n", 1),
    "no-rate": edited(lambda data: data.update(fps="0")),
    "negative": edited(lambda data: data.update(start=-1)),
    "too-many": edited(lambda data: data.update(frames=10**12)),
    "unknown-numerics": edited(lambda data: data["numerics"].update(quantum=True)),
    "no-encoder": edited(lambda data: data.update(encoder={})),
    "a-word-for-a-number": edited(lambda data: data["encoder"].update(crf="low")),
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_ones_are_refused(kind: str) -> None:
    with pytest.raises(ManifestError, match=r"reading manifest m: it is damaged"):
        decode_manifest(BAD[kind], "m")


def test_an_endless_one_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asha_ray.storage.manifest.MAX_BYTES", 100)
    with pytest.raises(ManifestError, match="too many"):
        decode_manifest(encode_manifest(manifest_of()), "m")


def test_chunks_of_a_manifest_are_chunks() -> None:
    again = decode_manifest(encode_manifest(manifest_of()), "m")
    assert again.chunks[0] == Chunk(0, 3, 9, f"{3:040d}")
