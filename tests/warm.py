"""Workers of Ray that are forked from a process which has imported their libraries.

Ray starts each worker as a fresh Python, which imports Ray twice, then torch, and for a training
pandas too: two to five CPU seconds for each of hundreds, most of what tests on a cluster would
take. Here Ray is given a launcher in the place of Python, which hands workers on to a process that
forks them; from there on Ray's own files do what they always do. Workers whose runtime environment
has a folder, modules or a Python of its own are started afresh, and so is all that is no worker.
"""

import atexit
import ctypes
import json
import multiprocessing
import os
import runpy
import shlex
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NoReturn

from tests import warm_launcher

PR_SET_PDEATHSIG = 1
PRELOADED = (
    "asha_ray.cli.main",
    "asha_ray.farm.archive.archive",
    "asha_ray.farm.rendering.render",
    "asha_ray.farm.rendering.worker",
    "asha_ray.storage.s3",
    "asha_ray.audio.tracker",
    "tests.farm",
    # What Ray imports. Not Ray: it reads its environment when it is imported, a worker's job too.
    *("aiohttp", "google.protobuf.descriptor_pb2", "grpc.aio", "jsonschema", "pandas", "psutil"),
    *("pyarrow.dataset", "requests", "torch.distributed", "torch.nn.parallel", "yaml"),
)


def fork_server() -> ForkServerContext:
    """Forks processes that have imported what renders need: most of what a short one takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # Before a test names another folder for temporary files: a socket's path must be short.
    forkserver.ensure_running()
    return context


def end_with_parent(kind: signal.Signals = signal.SIGKILL) -> None:
    """Have this process sent a signal when the one that forked it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, kind)


def leave_server() -> None:
    """Let go of what says that the tests are there: their server waits for its end, to end too."""
    said = forkserver._forkserver
    if said._forkserver_alive_fd is not None:
        os.close(said._forkserver_alive_fd)
        said._forkserver_alive_fd = None


def begin_forked(end: signal.Signals = signal.SIGKILL) -> None:
    """What a process that was forked for a test does first.

    Args:
        end: it gets this signal when its server ends, and so when the tests do, however they do.
    """
    leave_server()
    end_with_parent(end)
    paths = Path("/proc").glob(f"{os.getppid()}/task/*/comm")
    threads = [path.read_text().strip() for path in paths]
    # That of Arrow's allocator is made for it.
    lost = [name for name in threads[1:] if name != "jemalloc_bg_thd"]
    assert not lost, f"the fork has lost threads of its server, and what they held: {lost}"


def become_node(command: list[str], environment: Mapping[str, str], log: Path) -> NoReturn:
    """`ray start` in a session of its own, together with what forks its workers."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for path, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (file, 1), (file, 2)):
        os.dup2(path, stream)
    begin_forked(signal.SIGTERM)
    os.setsid()
    launcher = make_launcher(log.parent)
    if os.fork() == 0:
        end_with_parent()
        serve_workers(log.parent)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = str(launcher)  # Python for all that it starts
    sys.argv = ["ray", *command]
    from ray.scripts.scripts import main

    main()
    raise AssertionError("click ends what it runs")


def make_launcher(folder: Path) -> Path:
    """What Ray takes for Python: an executable that asks the workers' server of this folder."""
    launcher = folder / "python"
    command = [sys.executable, "-IS", warm_launcher.__file__, sys.executable, str(_socket(folder))]
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    launcher.chmod(0o700)
    return launcher


@contextmanager
def warm_workers(folder: Path) -> Iterator[Path]:
    """Serve one Ray while the context lasts; yields what it takes for Python."""
    process: Any = fork_server().Process(target=_begin_to_serve, args=(folder,), daemon=True)
    process.start()
    while not _socket(folder).exists():
        assert process.is_alive(), "the workers' server has ended"
        time.sleep(0.01)
    try:
        yield make_launcher(folder)
    finally:
        process.kill()
        process.join()


def _begin_to_serve(folder: Path) -> NoReturn:
    begin_forked()
    serve_workers(folder)


def serve_workers(folder: Path) -> NoReturn:
    """Fork a worker for every launcher that asks."""
    assert "ray" not in sys.modules, "Ray has read another environment than its workers'"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{_socket(folder)}.new")
        listener.listen(64)
        Path(f"{_socket(folder)}.new").rename(_socket(folder))
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _become_worker(connection)
            connection.close()


def _socket(folder: Path) -> Path:
    return folder / "workers"


def _become_worker(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)  # as the raylet does with each: it ends groups
    _, files, _, _ = socket.recv_fds(connection, 1, len(warm_launcher.STREAMS))
    with connection.makefile("rb") as stream:
        told = json.load(stream)
    connection.close()
    for file, stream_number in zip(files, warm_launcher.STREAMS, strict=True):
        os.dup2(file, stream_number)
        os.close(file)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    tempfile.tempdir = None  # read anew
    code: Any = 1
    try:
        _work(told["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001 (as Python does with what nobody catches)
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _work(told: list[str]) -> None:
    """What Ray's `setup_worker.py` does, but for the second Python that it would become."""
    from ray._private.runtime_env.context import RuntimeEnvContext
    from ray._private.utils import update_envs
    from ray._private.workers import setup_worker

    arguments = told
    if Path(arguments[0]).name == "setup_worker.py":
        known, arguments = setup_worker.parser.parse_known_args(arguments[1:])
        context = RuntimeEnvContext.deserialize(known.serialized_runtime_env_context or "{}")
        own = context.command_prefix or "PYTHONPATH" in context.env_vars
        if own or context.py_executable != sys.executable:
            os.execv(sys.executable, [sys.executable, *told])
        update_envs(context.env_vars)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
