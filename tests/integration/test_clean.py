"""`clean` beside real renders: what they need is found, and what they left is not."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asha_ray
from asha_ray.farm.rendering.render import RenderResult
from asha_ray.farm.tools.clean import CleanResult
from asha_ray.progress import NullProgress
from asha_ray.scratch import scratch_file
from asha_ray.storage import storage_of

CHUNKS = {"chunk_seconds": 0.5, "duration": 1.5}


class WhenReady(NullProgress):
    """Does something once while frames are rendered, as soon as it can be done."""

    def __init__(self, act: Callable[[], Any], ready: Callable[[], bool] = lambda: True) -> None:
        self.act, self.ready, self.stage_name, self.answer = act, ready, "", None

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.stage_name = name

    def advance(self, count: int = 1, detail: str = "") -> None:
        if self.stage_name == "rendering" and self.answer is None and self.ready():
            self.answer = self.act() or True


def interrupt() -> None:
    raise KeyboardInterrupt


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def grow_old(folder: Path, days: float) -> None:
    """Let all files be as if they had been written days ago."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 86_400 * days,) * 2)


def deleted(work: Path | str, **options: Any) -> CleanResult:
    return asha_ray.clean(work, delete=True, **options)


def states(result: CleanResult) -> dict[str, str]:
    return {
        render.render_id: f"{render.state}, {'kept' if render.kept else 'goes'}"
        for render in result.renders
    }


@pytest.fixture
def render(track: Path, model: Path, tmp_path: Path) -> Callable[..., RenderResult]:
    def run(name: str, **options: Any) -> RenderResult:
        given = {"executor": "serial", "work": tmp_path / "work", **CHUNKS, **options}
        return asha_ray.render(track, model=model, out=tmp_path / "videos" / name, **given)

    return run


@pytest.mark.timeout(120)
def test_a_work_roots_life(render: Callable[..., RenderResult], tmp_path: Path) -> None:
    work, videos = tmp_path / "work", tmp_path / "videos"
    done = render("done.mp4")
    needed = names(work)
    assert done.chunks == 3
    committed = WhenReady(interrupt, lambda: len(list((work / "segments").glob("*.json"))) > 3)
    with pytest.raises(KeyboardInterrupt):
        render("broken.mp4", seed=9, progress=committed)
    unfinished = names(work)
    (work / "segments" / f"{'0' * 40}.mp4").write_bytes(b"orphan")
    (work / "segments" / ".asha-left.tmp").write_bytes(b"half")
    (work / "segments" / "mine.mp4").write_bytes(b"foreign")
    grow_old(work, 1)

    # What is finished stays, what was interrupted stays for its days, waste goes.
    result = deleted(work)
    assert sorted(states(result).values()) == ["finished, kept", "unfinished, kept"]
    assert names(work) == unfinished | {"segments/mine.mp4"}

    # Who gives it no more days gives it up.
    result = deleted(work, keep_days=0)
    assert states(result)[done.render_id] == "finished, kept"
    assert names(work) == needed | {"segments/mine.mp4"}
    assert render("again.mp4").reused_chunks == done.chunks
    assert (videos / "again.mp4").read_bytes() == (videos / "done.mp4").read_bytes()

    # Without a video there is nothing to keep its segments for.
    for video in videos.glob("*.mp4"):
        video.unlink()
    grow_old(work, 1)
    deleted(work, keep_days=0)
    assert names(work) == {"segments/mine.mp4"}
    assert render("done.mp4").reused_chunks == 0
    assert asha_ray.inspect(videos / "done.mp4").problems == ()


def test_a_running_render_loses_nothing(
    render: Callable[..., RenderResult], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    first = render("first.mp4", duration=1)
    (tmp_path / "videos" / "first.mp4").unlink()
    grow_old(work, 1)

    during = WhenReady(lambda: deleted(work, keep_days=0))
    second = render("second.mp4", progress=during)

    assert states(during.answer)[second.render_id] == "running, kept"
    assert states(during.answer)[first.render_id] == "unfinished, goes"
    assert during.answer.counts["segments"].unneeded == 0
    assert second.reused_chunks == first.chunks == 2
    assert asha_ray.inspect(tmp_path / "videos" / "second.mp4").problems == ()
    assert not (work / "renders" / first.render_id).exists()


def test_a_segment_that_goes_when_a_render_has_found_it_is_made_anew(
    render: Callable[..., RenderResult], tmp_path: Path
) -> None:
    """There is no lock between them: this is why none is needed."""
    work = tmp_path / "work"
    render("first.mp4", duration=1)

    def lose() -> None:
        segments = sorted((work / "segments").glob("*"))
        for path in segments[:2]:
            path.unlink()

    second = render("second.mp4", progress=WhenReady(lose))
    assert second.chunks == 3
    assert asha_ray.inspect(tmp_path / "videos" / "second.mp4").problems == ()


def test_stems_and_grid_features_of_a_finished_render_stay(
    render: Callable[..., RenderResult], tmp_path: Path
) -> None:
    """The keys of both are hashes that its manifest does not name."""
    work = tmp_path / "work"
    render("v.mp4", stem="percussive")
    grow_old(work, 100)
    before = names(work)
    assert any(name.startswith("stems/") for name in before)

    assert deleted(work, keep_days=0).kept == (), "they do not say whose they are"
    assert names(work) == before

    (tmp_path / "videos" / "v.mp4").unlink()
    with scratch_file(work / "segments") as held:
        deleted(work, keep_days=0)
        assert held.exists()
    assert names(work) == set()


def test_in_a_bucket(bucket: str, render: Callable[..., RenderResult], tmp_path: Path) -> None:
    work, storage = f"{bucket}/work", storage_of(bucket)
    done = render("done.mp4", work=work)
    needed = {entry.uri for entry in storage.list(work)}
    orphans = [
        f"{work}/segments/{number:040x}.{end}" for number in range(9) for end in ("json", "mp4")
    ]
    for uri in orphans:
        storage.write(uri, b"orphan")
    storage.write(f"{work}/notes.txt", b"foreign")

    result = asha_ray.clean(work, keep_days=0)
    assert needed | {*orphans, f"{work}/notes.txt"} == {entry.uri for entry in storage.list(work)}
    assert result.counts["segments"].unneeded_bytes == result.freed_bytes == 6 * len(orphans)

    result = deleted(work, keep_days=0)
    assert states(result) == {done.render_id: "finished, kept"}
    assert result.foreign == (f"{work}/notes.txt",)
    assert {entry.uri for entry in storage.list(work)} == needed | {f"{work}/notes.txt"}
