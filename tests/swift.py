"""OpenStack Swift as an S3 server for tests: a real store, which checks credentials and keeps.

It has an environment of its own, since its pins are not ours, built when it is first asked for.
"""

import fcntl
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asha_ray

ENVIRONMENT = Path(asha_ray.__file__).parents[1] / ".venv" / "swift"
PINS = ("swift==2.38.3", "eventlet==0.41.3", "setuptools<81")
CREDENTIALS = ("test:tester", "testing")
READY = "asha-ray-ready.txt"


def python() -> Path:
    """The Python of Swift's environment, built if it is not there yet."""
    ready = ENVIRONMENT / READY
    with ENVIRONMENT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be about to build it too
        if not ready.exists() or ready.read_text() != repr(PINS):
            venv.create(ENVIRONMENT, clear=True, with_pip=True)
            pip = [ENVIRONMENT / "bin" / "python", "-I", "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", *PINS], check=True, timeout=600)
            ready.write_text(repr(PINS))
    return ENVIRONMENT / "bin" / "python"


@contextmanager
def swift(folder: Path) -> Iterator[str]:
    """A running server that keeps its objects below a folder; yields its endpoint."""
    script = Path(__file__).with_name("swift_process.py")
    with (folder.with_suffix(".log")).open("wb") as log:
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [python(), "-I", "-W", "ignore", script, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip().decode()
        if not port:
            sys.stderr.write(folder.with_suffix(".log").read_text())
            raise RuntimeError("Swift did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=30)
