"""Ctrl-C in the middle of a render: the right exit code, and nothing left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from asha_ray.scratch import sweep
from tests import media
from tests.farm import wait_for

REPOSITORY = Path(__file__).parents[2]


def encoders_below(process: subprocess.Popen) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "rawvideo" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def start(
    model: Path, tmp_path: Path, temporary: Path
) -> Iterator[Callable[[str], subprocess.Popen]]:
    """Start a render that takes minutes, in a process group of its own."""
    sound = media.write_sound(tmp_path / "long.wav", media.music(20, 22050), 22050)
    processes = []

    def run(executor: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "asha_ray", "render", str(sound), "--model", str(model)),
                *("--out", str(tmp_path / "out" / "v.mp4"), "--work", str(tmp_path / "work")),
                *("--size", "1280x720", "--preset", "veryslow", "--executor", executor),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp"},
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def assert_nothing_is_left(tmp_path: Path, temporary: Path, encoders: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(encoders, timeout=10)
    assert alive == [], "an encoder goes on after its render has ended"
    out = tmp_path / "out"
    assert not out.exists() or list(out.iterdir()) == []
    assert [path.name for path in (tmp_path / "work").rglob("*.tmp")] == []
    theirs = ("ray", "torchinductor_")  # caches of Ray and torch
    left = [path.name for path in temporary.iterdir() if not path.name.startswith(theirs)]
    assert left == [], "temporary files are left"


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(signal.SIGINT, id="SIGINT"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_serial_render(
    kind: signal.Signals, start: Callable, tmp_path: Path, temporary: Path
) -> None:
    process = start("serial")
    wait_for(lambda: encoders_below(process), 60, "an encoder")
    encoders = encoders_below(process)

    # Ctrl-C in a terminal reaches the whole group, SIGTERM the one process.
    if kind == signal.SIGINT:
        os.killpg(process.pid, kind)
    else:
        process.send_signal(kind)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert_nothing_is_left(tmp_path, temporary, encoders)
    assert "0 of 2 chunks are finished and kept in" in err
    assert "interrupted; the same command goes on from what is finished" in err


@pytest.mark.timeout(150)
@pytest.mark.parametrize("executor", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_second_signal_stops_at_once(
    executor: str, start: Callable, tmp_path: Path, temporary: Path
) -> None:
    """What it leaves half done is swept by whoever comes next, and nothing goes on."""
    process = start(executor)
    wait_for(lambda: encoders_below(process), 120, "an encoder")
    below = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == 130
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    sweep(temporary, *(tmp_path / "work").rglob("*"))
    assert_nothing_is_left(tmp_path, temporary, [])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_render_on_ray(
    kind: signal.Signals, start: Callable, tmp_path: Path, temporary: Path
) -> None:
    process = start("ray")
    wait_for(lambda: encoders_below(process), 120, "an encoder")
    encoders = encoders_below(process)

    # `ray job stop` and Kubernetes send SIGTERM to the driver, where Ray would abort.
    if kind == signal.SIGINT:
        os.killpg(process.pid, kind)
    else:
        process.send_signal(kind)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert_nothing_is_left(tmp_path, temporary, encoders)
    assert "interrupted; the same command goes on from what is finished" in err
