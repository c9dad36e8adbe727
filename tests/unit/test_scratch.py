"""Temporary files are found again exactly when nobody uses them any more."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asha_ray.scratch import is_scratch, leftovers, scratch_file, scratch_folder, sweep

KILLED = """
import sys, time
from pathlib import Path
from asha_ray.scratch import scratch_file, scratch_folder
place = Path(sys.argv[1])
with scratch_folder("chunk", place) as folder, scratch_file(place) as file:
    (folder / "segment.mp4").write_bytes(b"half")
    file.write_bytes(b"half")
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has a folder and a file in hand."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_is_in_use_stays(other: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert len(list(tmp_path.iterdir())) == 2
    assert leftovers(tmp_path) == []
    assert sweep(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert other.poll() is None


def test_what_a_killed_process_leaves_is_swept(
    other: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()

    assert len(leftovers(tmp_path)) == 2
    assert sweep(tmp_path, tmp_path / "nowhere") == 2
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_the_last_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed while he cleans up would leave a folder that nobody dares to sweep."""
    unlink, order = os.unlink, []

    def told(path: str | os.PathLike[str], **options: int) -> None:
        order.append(Path(path).name)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", told)
    with scratch_folder("chunk", tmp_path) as folder:
        for name in ("0.wav", "z.wav"):
            (folder / name).write_bytes(b"half")
        (folder / "below").mkdir()
        (folder / "below" / "1.wav").write_bytes(b"half")
        shutil.copytree(folder, copy := folder.with_name(".asha-chunk-00000000"))
    assert sorted(order[:3]) == ["0.wav", "1.wav", "z.wav"]
    assert order[3:] == [".alive"]

    order.clear()
    assert sweep(tmp_path) == 1
    assert not copy.exists()
    assert sorted(order[:3]) == ["0.wav", "1.wav", "z.wav"]
    assert order[3:] == [".alive"]


def test_a_context_leaves_nothing(tmp_path: Path) -> None:
    with scratch_folder("x", tmp_path) as folder, scratch_file(tmp_path) as file:
        assert folder.is_dir()
        assert is_scratch(file)
        assert folder.stat().st_mode & 0o077 == file.stat().st_mode & 0o077 == 0
        kept = tmp_path / "kept"
        file.write_text("whole")
        file.rename(kept)

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "whole"


def test_what_has_no_lock_yet_is_left_alone_while_it_is_young(tmp_path: Path) -> None:
    folder, file = tmp_path / "asha-chunk-ab12_xyz", tmp_path / ".asha-2.new"
    folder.mkdir(mode=0o700)
    file.touch()
    assert leftovers(tmp_path) == []

    old = time.time() - 61
    for path in (folder, file):
        os.utime(path, (old, old))
    assert leftovers(tmp_path) == sorted([folder, file])


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "asha-link").symlink_to(target)
    (tmp_path / "notes.tmp").touch()
    (tmp_path / "asha-ray.txt").touch()
    (tmp_path / ".asharc").touch()
    (tmp_path / "asha-videos").mkdir()
    (tmp_path / "asha-renders").mkdir(mode=0o700)  # empty, and somebody's own
    (tmp_path / "asha-my-pictures").mkdir()
    (tmp_path / "asha-videos" / "v.mp4").touch()
    old = time.time() - 1000
    for path in tmp_path.iterdir():
        os.utime(path, (old, old))

    assert leftovers(tmp_path) == []
