"""The ffmpeg program from imageio-ffmpeg: where it is, what it may open, what it said last.

Media are untrusted. A file that is named `show.mp3` but begins like a playlist makes ffmpeg read
other files, and a name such as `a:b.wav` is taken for a protocol. So every input goes in as a
`file:` path, with protocols and formats that are listed here and no others.
"""

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

MEDIA_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,dtshd,eac3,flac,flv,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,oma,shn,tak,truehd,tta,voc,w64,wav,wv"
)
"""Demuxers of single files; none of them opens a second one."""

INPUT_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": MEDIA_FORMATS}
"""What makes opening an untrusted file safe, for the program and for PyAV."""

ADDRESS = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] ?")
TAIL_BYTES = 2000
PIPE_BYTES = 1 << 20
"""The kernel's own limit for users without privileges (`/proc/sys/fs/pipe-max-size`)."""


@functools.cache
def executable() -> str:
    """The path of the ffmpeg program."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


@functools.cache
def version() -> str:
    """The build of the ffmpeg program, as it names itself."""
    done = subprocess.run([executable(), "-version"], capture_output=True, text=True, check=True)
    return done.stdout.split(" Copyright")[0].removeprefix("ffmpeg version ").strip()


@functools.cache
def encoders() -> frozenset[str]:
    """The names of all encoders in the ffmpeg program."""
    done = subprocess.run(
        [executable(), "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    )
    rows = done.stdout.partition("------")[2].splitlines()[1:]
    return frozenset(row.split()[1] for row in rows if len(row.split()) > 1)


def file_url(path: str | Path) -> str:
    """A local path in the one form that ffmpeg cannot take for anything else."""
    return f"file:{Path(path).absolute()}"


def input_arguments(path: str | Path) -> list[str]:
    """Arguments that open an untrusted local file."""
    options = [part for key, value in INPUT_OPTIONS.items() for part in (f"-{key}", value)]
    return [*options, "-i", file_url(path)]


def widen_pipe(pipe: IO[bytes]) -> None:
    """Let a pipe hold as much as the system allows without privileges, where it can be asked.

    A frame then crosses in a few writes instead of dozens, each a change of context.
    """
    if fcntl is None or not hasattr(fcntl, "F_SETPIPE_SZ"):
        return
    with suppress(OSError):  # the user's share of pipe memory is used up: it works as it is
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Program:
    """A running ffmpeg, with its stderr kept in a temporary file, away from the pipes.

    Args:
        arguments: all but the program itself.
        stdin: whether it is fed through `.stdin`.
        stdout: whether it is read through `.stdout`.
        level: of what it writes to stderr, as `-v` takes it.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        stdin: bool = False,
        stdout: bool = False,
        level: str = "error",
    ) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        command = [executable(), "-nostdin", "-hide_banner", "-v", level, *arguments]
        if stdin:
            command.remove("-nostdin")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=self._stderr,
            bufsize=0,
        )

    @property
    def stdin(self) -> IO[bytes]:
        """Where its input is written."""
        assert self._process.stdin is not None  # noqa: S101 (asked for in the constructor)
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where its output is read."""
        assert self._process.stdout is not None  # noqa: S101 (asked for in the constructor)
        return self._process.stdout

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def finish(self) -> int:
        """Close its input, wait for its end, and return its exit code."""
        if self._process.stdin:
            with suppress(BrokenPipeError):  # it has ended already; its exit code tells
                self._process.stdin.close()
        return self._process.wait()

    def last_words(self) -> str:
        """The end of what it wrote to stderr, on one line."""
        size = self._stderr.seek(0, 2)
        self._stderr.seek(max(0, size - TAIL_BYTES))
        lines = self._stderr.read().decode(errors="replace").split("\n")
        told = [ADDRESS.sub("", line).strip() for line in lines]
        words = "; ".join(dict.fromkeys(line for line in told if line))
        if len(words) > 600:
            # It names the cause first and its consequences at length.
            words = f"{words[:250]} … {words[-340:]}"
        return words or "it said nothing"

    def log(self) -> Iterator[str]:
        """The lines that it wrote to stderr, when it has ended."""
        self._stderr.seek(0)
        for line in self._stderr:
            yield line.decode(errors="replace").rstrip()

    def close(self) -> None:
        """End it if it still runs, and free what it held. May be called twice."""
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):  # unwritten bytes for a program that has ended
                    pipe.close()
        self._process.wait()
        self._stderr.close()

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
