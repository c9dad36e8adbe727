"""The pipe that frames cross: wide where the system lets it, and never a reason to fail."""

import fcntl
import os

import pytest

from asha_ray import ffmpeg

needs_pipe_size = pytest.mark.skipif(
    not hasattr(fcntl, "F_SETPIPE_SZ"), reason="this system has no pipe sizes"
)


@pytest.fixture
def pipe():
    ends = os.pipe()
    with os.fdopen(ends[0], "rb", 0) as out, os.fdopen(ends[1], "wb", 0) as into:
        yield out, into


@needs_pipe_size
def test_it_holds_whole_frames(pipe):
    before = fcntl.fcntl(pipe[1].fileno(), fcntl.F_GETPIPE_SZ)
    ffmpeg.widen_pipe(pipe[1])
    assert fcntl.fcntl(pipe[1].fileno(), fcntl.F_GETPIPE_SZ) >= before


def test_a_system_that_refuses_is_worked_with(pipe, monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError("over the user's share")

    monkeypatch.setattr(ffmpeg.fcntl, "fcntl", refuse)
    ffmpeg.widen_pipe(pipe[1])
    pipe[1].write(b"still")
    assert pipe[0].read(5) == b"still"


def test_a_system_without_it_is_worked_with(pipe, monkeypatch):
    monkeypatch.setattr(ffmpeg, "fcntl", None)
    ffmpeg.widen_pipe(pipe[1])
