"""`plan` against the render that follows it, and what `bench` measures beside frames."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asha_ray.farm.tools import bench_machine

Cli = Callable[..., Any]


@pytest.fixture
def planned(
    cli: Cli, track: Path, model: Path, tmp_path: Path
) -> Iterator[Callable[..., dict[str, Any]]]:
    """A command with the same track, model and chunks; its JSON."""
    words = [track, "--model", model, "--out", tmp_path / "v.mp4"]
    words += ["--executor", "serial", "--chunk-seconds", "0.5", "--fps", "24", "--json"]

    def run(command: str, *more: str) -> dict[str, Any]:
        answer = cli(command, *words, *more)
        assert answer.code == 0, answer.err
        return json.loads(answer.out)

    return run


def test_a_plan_knows_what_its_render_will_reuse(planned, tmp_path: Path) -> None:
    """The plan would promise work that is done, or forget work that is not."""
    fresh = planned("plan", "--rate", "9")
    assert not (tmp_path / ".asha").exists()
    assert (fresh["listened"], fresh["reused_chunks"], fresh["chunks"]) == (False, 0, 6)
    planned("render", "--duration", "1")

    kept = sorted(tmp_path.rglob("*"))
    partly = planned("plan", "--rate", "9")
    assert sorted(tmp_path.rglob("*")) == kept
    rendered = planned("render")
    done = planned("plan", "--rate", "9")

    assert partly["reused_chunks"] == rendered["reused_chunks"]
    for name in ("frames", "chunks", "duration_s", "fps"):
        assert fresh[name] == partly[name] == rendered[name]
    assert (partly["reused_chunks"], partly["missing_frames"]) == (2, rendered["frames"] - 24)
    assert (done["reused_chunks"], done["missing_frames"]) == (rendered["chunks"], 0)
    assert done["stages"]["rendering"] == done["worker_hours"] == 0
    assert planned("plan", "--rate", "9", "--fresh")["missing_frames"] == rendered["frames"]


def test_segments_that_are_there_tell_the_bytes_of_the_video(planned, tmp_path: Path) -> None:
    """A disk that is too small would be known too late."""
    planned("render")
    size = (tmp_path / "v.mp4").stat().st_size
    assert planned("plan", "--rate", "9")["video_bytes"] == pytest.approx(size, rel=0.6)


@pytest.mark.slow
def test_a_machine_is_measured_with_what_renders_do(
    monkeypatch: pytest.MonkeyPatch, recorder: Any
) -> None:
    """Where Ray cannot start, what else was measured in minutes would be lost."""
    monkeypatch.setattr(bench_machine, "EXECUTORS", ("serial", "abacus"))
    monkeypatch.setattr(bench_machine, "QUICK_SOUND_S", 1)

    found = bench_machine.measure_machine("cpu", None, quick=True, progress=recorder)

    assert min(found.listen, found.join, found.import_s, found.start_s["serial"]) > 0
    assert set(found.start_s) == {"serial"}
    (note,) = recorder.notes
    assert note.startswith("measuring how a render with --executor abacus begins: ")
