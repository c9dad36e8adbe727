"""One process, killed at each step of a render: what is finished is kept, and nothing else is.

The process is forked from one that has imported everything, or the list would take minutes.
"""

import os
import shutil
import signal
import tempfile
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

import asha_ray
from asha_ray import faults
from asha_ray.farm.rendering.render import RenderResult
from tests.farm import Render, Stop, render_alone, require_gone, wait_for
from tests.warm import fork_server

OPTIONS = {"chunk_seconds": 0.25, "duration": 0.7}
OF_EACH_CHUNK = ("encoded", "verified", "uploaded", "recorded", "committed")
KEPT = {"recorded": 2, "committed": 2}
"""Records at the second chunk's step; else one, or none before the first chunk, or all."""


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


def run(render: Render) -> RenderResult:
    return asha_ray.render(render.audio, executor="serial", **render.settings())


@pytest.fixture(scope="module")
def old(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Another video, that lies where the new one will."""
    folder = str(tmp_path_factory.mktemp("old"))
    render = Render(str(track), str(model), folder, (), {**OPTIONS, "seed": 3})
    run(render)
    return render


@pytest.fixture(scope="module")
def expected(track: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    render = Render(str(track), str(model), str(tmp_path_factory.mktemp("new")), (), OPTIONS)
    run(render)
    return render.sha256()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", faults.STEPS)
def test_a_process_killed_there(
    step: str, server: ForkServerContext, old: Render, expected: str, track: Path, model: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    render = Render(str(track), str(model), str(tmp_path / "place"), (temporary,), OPTIONS)
    render.take_features(old)
    shutil.copytree(Path(old.out).parent, Path(render.out).parent)
    stop = Stop(step, 2 if step in OF_EACH_CHUNK else 1, tmp_path / "stop")

    process = server.Process(target=render_alone, args=(render, stop.variable))
    process.start()
    try:
        pid = wait_for(stop.pid, 90, f"step {step}")
        kept = render.kept()
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert pid == process.pid
    require_gone(pid)

    steps = list(faults.STEPS)
    whole = steps.index(step) >= steps.index("rendered")
    before = steps.index(step) <= steps.index("planned")
    assert len(kept) == (3 if whole else 0 if before else KEPT.get(step, 1))
    is_new = steps.index(step) >= steps.index("published")
    assert render.sha256() == (expected if is_new else old.sha256()), "half a video"
    assert render.recorded() in (None, render.sha256()), "a record vouches for another video"

    result = run(render)

    assert result.reused_chunks == len(kept)
    render.require_kept(kept)
    render.require_done(expected)
