"""A worker that is given what another may have finished looks before it renders."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from asha_ray.errors import StorageError
from asha_ray.farm.rendering import worker as module
from asha_ray.farm.rendering.task import ChunkTask, WorkerJob
from asha_ray.farm.rendering.worker import ChunkRenderer
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Chunk, EncoderSettings, Numerics, Segment

CHUNK = Chunk(3, 90, 120, "c" * 40)


class Rendered(Exception):
    pass


@pytest.fixture
def renderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChunkRenderer:
    """One that would raise if it began."""
    return make(tmp_path, monkeypatch, fresh=False)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fresh: bool) -> ChunkRenderer:
    def encode(*_: object) -> None:
        raise Rendered

    monkeypatch.setattr(module, "require_same_kind", lambda *_, **__: None)
    monkeypatch.setattr(module, "load_decoder", lambda *_: None)
    monkeypatch.setattr(module, "encode_segment", encode)
    numerics = Numerics("cpu", "float32", channels_last=False, batch_size=2, threads=1)
    job = WorkerJob(
        model="",
        numerics=numerics,
        encoder=EncoderSettings("libx264", 18, "veryfast", 1, ""),
        size=(32, 32),
        fit="crop",
        fps=Fraction(60),
        work=str(tmp_path),
        fresh=fresh,
    )
    return ChunkRenderer(job)


def store(tmp_path: Path) -> Segment:
    tmp_path.mkdir(exist_ok=True)
    source = tmp_path / "source"
    source.write_bytes(b"a segment")
    segment = Segment(CHUNK.chunk_id, "0" * 64, 9, CHUNK.num_frames, 1.0, "other:1")
    WorkRoot(str(tmp_path)).upload_segment(source, segment)
    WorkRoot(str(tmp_path)).write_record(segment)
    return segment


def task(*, may_be_there: bool) -> ChunkTask:
    return ChunkTask(CHUNK, np.zeros((30, 4), np.float32), may_be_there)


def test_what_a_lost_worker_finished_is_not_rendered_again(
    renderer: ChunkRenderer, tmp_path: Path
) -> None:
    segment = store(tmp_path)
    assert renderer.render(task(may_be_there=True)) == segment


def test_what_it_did_not_finish_is_rendered(renderer: ChunkRenderer) -> None:
    with pytest.raises(Rendered):
        renderer.render(task(may_be_there=True))


def test_nobody_looks_at_the_first_time(renderer: ChunkRenderer, tmp_path: Path) -> None:
    """The driver has looked for all of them."""
    store(tmp_path)
    with pytest.raises(Rendered):
        renderer.render(task(may_be_there=False))


def test_a_fresh_render_takes_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path)
    with pytest.raises(Rendered):
        make(tmp_path, monkeypatch, fresh=True).render(task(may_be_there=True))


def test_a_model_that_cannot_be_loaded_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an archive shows have models of their own; a bucket may not answer for a moment."""
    renderer = make(tmp_path, monkeypatch, fresh=True)
    own = renderer._job
    loaded: list[str] = []

    def load(uri: str, _: object) -> None:
        loaded.append(uri)
        if uri == "gone":
            raise StorageError("reading gone: no answer")

    monkeypatch.setattr(module, "load_decoder", load)
    other = replace(task(may_be_there=False), job=replace(own, model="gone"))
    with pytest.raises(StorageError):
        renderer.render(other)
    for _ in range(2):
        with pytest.raises(Rendered):
            renderer.render(task(may_be_there=False))
    assert loaded == ["gone", ""]
    renderer.close()


def test_a_chunk_goes_where_its_own_render_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = make(tmp_path, monkeypatch, fresh=False)
    elsewhere = tmp_path / "elsewhere"
    segment = store(elsewhere)
    given = task(may_be_there=True)
    with pytest.raises(Rendered):
        renderer.render(given)
    own = replace(renderer._job, work=str(elsewhere))
    assert renderer.render(replace(given, job=own)) == segment
