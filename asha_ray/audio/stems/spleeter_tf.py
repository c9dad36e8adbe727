"""Deezer's `spleeter` package itself, with TensorFlow, in a process and an environment of its own.

It is what the native separator is held against. It pins TensorFlow 2.12, NumPy below 2 and Python
below 3.12, so it cannot share an environment with the rest; a worker there is fed samples through
pipes. The package holds a whole track at once, about 22 MB for every second of it.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO

import numpy as np

from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.models import cache_root, find_model, remedied
from asha_ray.audio.stems.pcm import at_rate
from asha_ray.audio.stems.separator import SeparatorSettings, StemBlocks
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.errors import ResourceError, StemsError
from asha_ray.progress import NullProgress, Progress
from asha_ray.values import FloatArray, PcmStream

SAMPLE_RATE = 44_100
SPLEETER = "spleeter==2.4.2"
PINS = "spleeter_tf.txt"
WORKER = "spleeter_tf_worker.py"
READY = "asha-ray-ready.txt"
PYTHONS = ("python3.11", "python3.10")
BLOCK = 1 << 18
MAX_HEADER_BYTES = 1 << 16
SETUP_TIMEOUT_S = 1800
ENDING_S = 5
REMEDY = "build it with `asha-ray stems --setup-tf`"


class SpleeterTfSeparator:
    """Spleeter's 2, 4 or 5 stems by the package itself. Close it, or drop it, to end its process.

    Args:
        model: `2stems`, `4stems` or `5stems`.
        model_dir: the folder with its files; None looks in the usual places.
        environment: the virtual environment that `setup_tf` built; None means the usual one.

    Raises:
        StemsError: if the model or the environment is missing or damaged.
    """

    name = "spleeter-tf"
    sample_rate: int | None = SAMPLE_RATE

    def __init__(
        self,
        model: str = "4stems",
        model_dir: Path | None = None,
        environment: Path | None = None,
    ) -> None:
        folder = find_model(model, model_dir)
        # The package runs on random weights where it finds none that it likes, and says nothing.
        with remedied(model):
            checkpoint = Checkpoint(folder)
            for variable in checkpoint.entries:
                checkpoint.read(variable)
        self._python = _python_of(environment or default_environment())
        self._arguments = [model, str(folder.absolute()), *KINDS[model].stems]
        self._worker: _Worker | None = None
        self.stems = KINDS[model].stems
        self.version = f"{SPLEETER}-{model}-{checkpoint.digest}"

    def separate(self, pcm: PcmStream, first_sample: int = 0) -> StemBlocks:
        """Stems of a sound, see `Separator`; nothing comes out before all has gone in.

        Raises:
            ResourceError: if the worker ended, most likely for want of memory.
        """
        if first_sample:
            raise ValueError("this separator only takes tracks from their beginning")
        columns = at_rate(pcm, SAMPLE_RATE, self._separate_whole, num_columns=2 * len(self.stems))
        for block in columns:
            yield {
                stem: np.ascontiguousarray(block[:, 2 * index : 2 * index + 2])
                for index, stem in enumerate(self.stems)
            }

    def block_start(self, start: int, sample_rate: int) -> int:
        """0: the package knows only whole tracks."""
        del start, sample_rate
        return 0

    def block_stop(self, stop: int, sample_rate: int) -> int | None:
        """None: the package knows only whole tracks."""
        del stop, sample_rate
        return None

    def cut_near(self, sample: int, sample_rate: int) -> int | None:
        """None: the package knows only whole tracks."""
        del sample, sample_rate
        return None

    def close(self) -> None:
        """End the worker. May be called twice; another separation starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _separate_whole(self, blocks: Iterator[FloatArray]) -> Iterator[FloatArray]:
        if self._worker is None:
            self._worker = _Worker(self._python, self._arguments)
        done = False
        try:
            self._worker.send(blocks)
            yield from self._worker.receive(len(self.stems))
            done = True
        finally:
            # Half an exchange leaves bytes in the pipes that no one waits for.
            if not done:
                self.close()


def make(settings: SeparatorSettings) -> SpleeterTfSeparator:
    """A separator of the model that the settings name."""
    return SpleeterTfSeparator(settings.model, settings.model_dir, settings.environment)


def default_environment() -> Path:
    """Where `setup_tf` builds the environment, unless told otherwise."""
    return cache_root() / "spleeter-tf"


def setup_tf(folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Build the virtual environment of the `spleeter` package, of exactly the versions in its list.

    One that is there already is kept; one that was left half built is built anew. It takes a
    minute or two, 600 MB of downloads and 2.4 GB of disk.

    Args:
        folder: where; None means the usual place.
        progress: told what is going on.

    Raises:
        StemsError: if there is no Python that the package runs on, or it cannot be installed.
    """
    folder, progress = folder or default_environment(), progress or NullProgress()
    if _is_ready(folder):
        return folder
    python = _old_python()
    progress.stage(f"installing {SPLEETER} into {folder}")
    if (folder / "pyvenv.cfg").exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise StemsError(f"setting up spleeter in {folder}: it holds something else; name another")
    _run([python, "-m", "venv", str(folder)], folder)
    with as_file(files(__package__) / PINS) as pins:
        pip = [str(_bin(folder) / "python"), "-I", "-m", "pip", "install", "--quiet"]
        _run(
            [
                *(*pip, "--disable-pip-version-check", "--no-input", "--only-binary", ":all:"),
                *("--constraint", str(pins), SPLEETER),
            ],
            folder,
        )
    (folder / READY).write_text(_pins())
    return folder


def _pins() -> str:
    return (files(__package__) / PINS).read_text()


def _is_ready(folder: Path) -> bool:
    try:
        return (folder / READY).read_text() == _pins()
    except OSError:
        return False


def _bin(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def _python_of(folder: Path) -> Path:
    if not _is_ready(folder):
        raise StemsError(
            f"looking for the spleeter package: {folder} is not an environment of its versions; "
            f"{REMEDY}"
        )
    return _bin(folder) / "python"


def _old_python() -> str:
    if sys.version_info < (3, 12):
        return sys.executable
    for name in PYTHONS:
        if found := shutil.which(name):
            return found
    raise StemsError(
        "setting up spleeter: TensorFlow 2.12 needs Python 3.11 or 3.10, and there is neither; "
        "install one, or use --separator spleeter, which needs no TensorFlow"
    )


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SETUP_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StemsError(f"setting up spleeter in {folder}: {error}; try again") from error
    if done.returncode:
        words = "; ".join(line for line in done.stderr.splitlines() if "ERROR" in line)
        raise StemsError(
            f"setting up spleeter in {folder}: {(words or done.stderr.strip())[-600:]}; "
            "check the network and the disk, then try again"
        )


class _Worker:
    """The process in the other environment, and what is said to it."""

    def __init__(self, python: Path, arguments: list[str]) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        with as_file(files(__package__) / WORKER) as script:
            # -I: nothing of this process's own Python may reach it.
            self._process = subprocess.Popen(
                [str(python), "-I", str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            )
        self._end = weakref.finalize(self, _end, self._process, self._stderr)

    def send(self, blocks: Iterator[FloatArray]) -> None:
        """Write a track `[m, 2]` to it."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 (asked for above)
        try:
            for block in blocks:
                for first in range(0, len(block), BLOCK):
                    part = np.ascontiguousarray(block[first : first + BLOCK], "<f4")
                    stdin.write(struct.pack("<I", len(part)) + part.tobytes())
            stdin.write(struct.pack("<I", 0))
            stdin.flush()
        except BrokenPipeError as error:
            raise self._failed() from error

    def receive(self, num_stems: int) -> Iterator[FloatArray]:
        """Read its stems, as blocks `[m, 2 * num_stems]`."""
        (num_bytes,) = struct.unpack("<I", self._read(4))
        if num_bytes > MAX_HEADER_BYTES:
            raise self._failed()
        num_samples = int(json.loads(self._read(num_bytes))["num_samples"])
        for first in range(0, num_samples, BLOCK):
            count = min(BLOCK, num_samples - first)
            data = self._read(8 * count * num_stems)
            yield np.concatenate(np.frombuffer(data, "<f4").reshape(num_stems, count, 2), axis=1)

    def close(self) -> None:
        """End it, and free what it held."""
        self._end()

    def _read(self, num_bytes: int) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 (asked for above)
        data = stdout.read(num_bytes)
        if len(data) < num_bytes:
            raise self._failed()
        return data

    def _failed(self) -> ResourceError:
        # It closes its pipes a moment before it ends, and its own code tells why.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING_S)
        self._process.kill()
        code = self._process.wait()
        size = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, size - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        remedy = "use --separator spleeter, which needs no TensorFlow"
        if code == -signal.SIGKILL:  # how the system takes memory back
            remedy = f"it holds a whole track in memory, 22 MB for every second; {remedy}"
        return ResourceError(
            f"separating with the spleeter package: its process ended (code {code}; "
            f"{lines[-1] if lines else 'it said nothing'}); {remedy}"
        )


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, stderr):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:  # unwritten bytes for a process that has ended
                continue
