"""Renders that are stopped at a named step and killed there, and what must hold after that."""

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

import asha_ray
from asha_ray import faults
from asha_ray.errors import NotFoundError
from asha_ray.scratch import PREFIXES
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.journal import read_events
from asha_ray.storage.keys import file_digest
from asha_ray.storage.work import WorkRoot
from tests.warm import end_with_parent, leave_server

REPOSITORY = Path(__file__).parents[1]
POLL_S = 0.05
RUN_S = 240.0
"""For one run; minutes only where the machine is busy with other things."""
NAMES = re.compile(
    r"segments/\w+\.(mp4|json)|features/\w+\.(npz|json)"
    r"|renders/\w+/(render\.json|heartbeat\.json|events/\w+-\d{6}\.jsonl)"
)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of a condition.

    Who waits shares two cores with what he waits for: asking takes a fifth of one, if it can.
    """
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(min(max(POLL_S, 4 * (time.monotonic() - asked)), 0.15))


@dataclass(frozen=True)
class Render:
    """One video: what it is made of, where it lies, and who may leave temporary files where."""

    audio: str
    model: str
    folder: str
    temporary: tuple[Path, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> str:
        return join(self.folder, "out", "v.mp4")

    @property
    def work(self) -> str:
        return join(self.folder, "work")

    def settings(self) -> dict[str, Any]:
        """For `asha_ray.render`."""
        return {"model": self.model, "out": self.out, "work": self.work, **self.options}

    def arguments(self) -> list[str]:
        named = self.settings().items()
        options = [f"--{name.replace('_', '-')}={value}" for name, value in named]
        return ["render", self.audio, *options]

    def kept(self) -> dict[str, tuple[bytes, str | None]]:
        """Every valid record, with what would change if its segment were made again."""
        storage, found = storage_of(self.work), {}
        for entry in self._segments(".json"):
            content = storage.read(entry)
            segment = entry.removesuffix(".json") + ".mp4"
            with storage.local_copy(segment) as path:
                assert file_digest(path) == json.loads(content)["sha256"], "a record that lies"
            found[entry] = content, storage.version(segment)
        return found

    def require_kept(
        self, before: Mapping[str, tuple[bytes, str | None]]
    ) -> dict[str, tuple[bytes, str | None]]:
        """Nothing of what was there has been made again; returns what is there now."""
        after = self.kept()
        changed = [record for record, content in before.items() if after.get(record) != content]
        assert changed == [], "rendered again"
        return after

    def num_records(self) -> int:
        return len(self._segments(".json"))

    def take_features(self, other: "Render") -> None:
        """Spare this render what another has heard."""
        for entry in storage_of(other.work).list(join(other.work, "features")):
            name = entry.uri.rsplit("/", 1)[1]
            content = storage_of(other.work).read(entry.uri)
            storage_of(self.work).write(join(self.work, "features", name), content)

    def _segments(self, suffix: str) -> list[str]:
        entries = storage_of(self.work).list(join(self.work, "segments"))
        return [entry.uri for entry in entries if entry.uri.endswith(suffix)]

    def sha256(self) -> str:
        """Of the finished video."""
        with storage_of(self.out).local_copy(self.out) as path:
            return file_digest(path)

    def require_done(self, sha256: str) -> None:
        """The video is what it should be and its record says, and nothing else is left."""
        assert self.sha256() == sha256
        assert self.recorded() == sha256
        self._require_clean()

    def recorded(self) -> str | None:
        """What the record beside the video says of it; None where there is none."""
        try:
            return str(json.loads(storage_of(self.out).read(f"{self.out}.json"))["sha256"])
        except NotFoundError:
            return None

    def events(self) -> list[Mapping[str, Any]]:
        entries = storage_of(self.work).list(join(self.work, "renders"))
        renders = {
            entry.uri.removeprefix(f"{self.work}/renders/").split("/")[0] for entry in entries
        }
        return [
            event for name in renders for event in read_events(WorkRoot(self.work).render_uri(name))
        ]

    def _require_clean(self) -> None:
        """Nothing is left but what a finished render leaves."""
        outputs = {entry.uri for entry in storage_of(self.out).list(join(self.folder, "out"))}
        assert outputs == {self.out, f"{self.out}.json"}
        names = [entry.uri for entry in storage_of(self.work).list(self.work)]
        strange = [
            name for name in names if not NAMES.fullmatch(name.removeprefix(f"{self.work}/"))
        ]
        assert strange == [], "work root"
        places = list(self.temporary)
        if is_s3(self.work):
            assert _unfinished_uploads(self.work) == []
        else:
            places.append(Path(self.folder))
        left = [
            str(path)
            for place in places
            for path in place.rglob("*")
            if path.name.startswith(PREFIXES) or path.name.endswith((".tmp", ".new"))
        ]
        assert left == [], "temporary files"


def _unfinished_uploads(uri: str) -> list[Any]:
    from asha_ray.storage import s3

    bucket = uri.removeprefix("s3://").split("/")[0]
    return list(s3._client().list_multipart_uploads(Bucket=bucket).get("Uploads", []))


class Work(Protocol):
    """Something that a driver does."""

    def arguments(self) -> list[str]:
        """The command and its options."""


class Stop:
    """A step at which whoever gets there n-th waits for its end."""

    def __init__(self, step: str, number: int, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.step, self._folder = step, folder
        self.variable = {faults.VARIABLE: f"{step}:{number}:{folder}"}

    def pid(self) -> int | None:
        """Who waits there, once somebody does."""
        with suppress(FileNotFoundError):
            return int((self._folder / "stopped").read_text())
        return None


class Answer(NamedTuple):
    """What a driver said in the end."""

    code: int
    result: dict[str, Any]
    err: str


class Driver:
    """`asha-ray` as a process of its own, on a Ray that is there.

    Args:
        context: starts it.
        folder: for what it says.
        arguments: its command.
        address: of the Ray.
        environment: of its process, and no more than this.
        stop: where it, or a worker of its, shall wait for its end.
        variables: of its environment and of its workers'.
    """

    def __init__(
        self,
        context: BaseContext,
        folder: Path,
        arguments: list[str],
        address: str,
        environment: Mapping[str, str],
        stop: Stop | None,
        variables: Mapping[str, str],
    ) -> None:
        variables = {**variables, **(stop.variable if stop else {})}
        # Workers have a node's environment, and this of the driver that asked for them.
        job = {"runtime_env": {"env_vars": variables}} if variables else {}
        own = {
            **environment,
            **variables,
            "RAY_ADDRESS": address,
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
        }
        folder.mkdir()
        self._stop, self._folder = stop, folder
        self._process: Any = context.Process(
            target=run_command, args=([*arguments, "--json"], own, folder)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def stopped(self) -> int:
        """Wait for the step that it should stop at; returns who is there."""
        assert self._stop is not None
        stop = self._stop

        def pid() -> int | None:
            assert self.is_running() or stop.pid(), f"it ended before {stop.step}: {self.finish()}"
            return stop.pid()

        return int(wait_for(pid, RUN_S, f"step {stop.step}"))

    def is_running(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        self._process.kill()
        self._process.join()

    def finish(self, seconds: float = RUN_S) -> Answer:
        """Wait for its end."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"it has not ended in {seconds} s"
        out, err = ((self._folder / name).read_text() for name in ("out", "err"))
        return Answer(code, json.loads(out) if out.strip() else {}, err)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.kill()


def require_gone(pid: int, seconds: float = 60.0) -> None:
    """A process ends by itself."""

    def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_for(is_gone, seconds, f"the end of process {pid}")


@contextmanager
def at(step: str) -> Iterator[None]:
    """Name the step in whatever goes wrong."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with a kill at {step}")
        raise


def run_command(arguments: list[str], environment: Mapping[str, str], folder: Path) -> None:
    """`asha-ray` with these arguments, in a process that was forked for it.

    What it prints comes into the files `out` and `err` of the folder.
    """
    from asha_ray.cli.main import main

    leave_server()
    end_with_parent()
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    tempfile.tempdir = None  # read anew
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = [str(REPOSITORY / "asha_ray" / "__main__.py"), *arguments]
    main()


def render_alone(render: Render, variables: Mapping[str, str]) -> None:
    """The serial executor, in a process that was forked for it."""
    os.environ |= {**variables, "TMPDIR": str(render.temporary[0])}
    tempfile.tempdir = None  # read anew
    asha_ray.render(render.audio, executor="serial", **render.settings())
