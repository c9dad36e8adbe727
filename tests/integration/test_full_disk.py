"""A work folder's disk that is full for a moment costs time, and one that stays full a clear error.

The disk is a real one, of 100 MB, in a mount namespace of the render's own.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asha_ray.storage.patience import FULL_DISK_PATIENCE_S
from tests import media
from tests.farm import wait_for

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import sys
from asha_ray.cli.main import main
from asha_ray.storage import patience
patience.FULL_DISK_PATIENCE_S = float(sys.argv.pop(1))
main()
"""
MOUNT = 'mount -t tmpfs -o size=100m none "$0" && exec "$@"'

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount a small disk"
)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 20))
        except OSError:
            return path


@pytest.fixture
def start(model: Path, tmp_path: Path) -> Iterator[Callable[[float], "subprocess.Popen[str]"]]:
    """Start a render whose work folder is on the small disk, and how long it waits for room."""
    sound = media.write_sound(tmp_path / "t.wav", media.music(3, 22050), 22050)
    (tmp_path / "disk").mkdir()
    processes = []

    def run(patience_s: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", MOUNT, str(tmp_path / "disk")),
                *(sys.executable, "-c", PROGRAM, str(patience_s)),
                *("render", str(sound), "--model", str(model)),
                *("--out", str(tmp_path / "v.mp4"), "--work", str(tmp_path / "disk" / "work")),
                *("--chunk-seconds", "0.5", "--size", "320x240", "--executor", "serial"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lasting", [False, True])
def test_a_full_disk(
    lasting: bool, start: Callable[[float], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    # Each of its tries waits for so long: minutes, with the usual patience.
    process = start(2.0 if lasting else FULL_DISK_PATIENCE_S)
    disk = Path(f"/proc/{process.pid}/root{tmp_path}/disk")  # as the render sees it
    wait_for(lambda: list(disk.glob("work/segments/*.json")), 120, "a first segment")
    filler = fill(disk)
    kept = len(list(disk.glob("work/segments/*.json")))
    assert kept < 6, "the render was over before the disk was full"

    if not lasting:
        time.sleep(3)  # the disk stays full for so long
        assert process.poll() is None
        assert len(list(disk.glob("work/segments/*.json"))) <= kept + 1
        filler.unlink()
    _, told = process.communicate(timeout=250)

    if lasting:
        assert process.returncode == 1
        assert "No space left on device; free some space, or choose another disk" in told
        assert "of 6 chunks are finished and kept in" in told
        assert "Traceback" not in told
        assert not (tmp_path / "v.mp4").exists()
    else:
        assert process.returncode == 0, told
        video = (tmp_path / "v.mp4").read_bytes()
        record = (tmp_path / "v.mp4.json").read_text()
        assert hashlib.sha256(video).hexdigest() in record
