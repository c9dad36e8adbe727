"""One local Ray and one S3 server for all integration tests, a tiny model and a short track."""

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import psutil
import pytest
import ray
import torch
from PIL import Image
from ray.data import DataContext

from asha_ray.farm.on_ray import runtime as ray_runtime  # noqa: F401 (sets what Ray reads when it is imported)
from asha_ray.progress import NullProgress
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.model_dir import write_model
from tests import media
from tests.warm import warm_workers

BUCKET = "asha-test"
TRACK_S = 2.5
SAMPLE_RATE = 22050
LATENT = 4


class Recorder(NullProgress):
    """A progress that remembers what it heard."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.done: dict[str, int] = {}

    def stage(self, name: str, total: int | None = None, unit: str = "") -> None:
        self.stages.append(name)

    def advance(self, count: int = 1, detail: str = "") -> None:
        self.done[self.stages[-1]] = self.done.get(self.stages[-1], 0) + count

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="package")
def package_environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="package", autouse=True)
def workers_temporary(package_environment: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of all processes that are started from here."""
    # Short, for the limit of Ray's sockets; and no name of ours, or somebody would sweep it.
    folder = Path(tempfile.mkdtemp(prefix="tests-", dir="/tmp"))
    package_environment.setenv("TMPDIR", str(folder))
    package_environment.setenv("RAY_TMPDIR", "/tmp")
    # What is in the cache of whoever runs the tests must not matter.
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    package_environment.setenv("XDG_CACHE_HOME", str(home / "cache"))
    package_environment.setenv("XDG_CONFIG_HOME", str(home / "config"))
    package_environment.delenv("RAY_ADDRESS", raising=False)
    yield folder
    for used in (folder, home):
        shutil.rmtree(used, ignore_errors=True)


@pytest.fixture(scope="package", autouse=True)
def s3_server(package_environment: pytest.MonkeyPatch, workers_temporary: Path) -> Iterator[str]:
    """An S3 server on loopback; the AWS environment names it, for workers of Ray too."""
    from moto.server import ThreadedMotoServer

    from asha_ray.storage import s3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        package_environment.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        package_environment.setenv(name, value)
    s3._client.cache_clear()
    yield f"http://{host}:{port}"
    s3._client.cache_clear()
    server.stop()


@pytest.fixture(scope="package")
def local_ray(
    s3_server: str, workers_temporary: Path, package_environment: pytest.MonkeyPatch
) -> Iterator[None]:
    """A Ray that everything in here joins; started once, since that costs seconds."""
    repository = str(Path(__file__).parents[2])
    package_environment.setenv(
        "PYTHONPATH", os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")])
    )
    with warm_workers(workers_temporary) as python:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(python))
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=200 << 20,
            )
        with warnings.catch_warnings():
            # Ray Train makes Ray Data's settings, which then warn of their own deprecated fields.
            warnings.filterwarnings("ignore", "`use_|`target_shuffle")
            DataContext.get_current()
        yield
        ray.shutdown()


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix `s3://…` of a bucket of its own."""
    import boto3

    client = boto3.client("s3")
    name = f"{BUCKET}-{abs(hash(request.node.nodeid)) % 10**9}"
    client.create_bucket(Bucket=name)
    yield f"s3://{name}/räume und 'mehr'"
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=name, Key=item["Key"])
    client.delete_bucket(Bucket=name)


def make_model(folder: Path, size: tuple[int, int] = (32, 32)) -> Path:
    """A model whose pictures move visibly with the latent."""
    vae = build(architecture_of("seed", size, LATENT, (8, 16), (16, 8)), 5)
    with torch.no_grad():
        for name, weight in vae.decoder.named_parameters():
            if name.endswith("weight"):
                weight.mul_(1.5)
    folder.mkdir(parents=True)
    keyframes = np.random.default_rng(2).normal(0, 2, (7, LATENT)).astype(np.float32)
    write_model(folder, vae, keyframes, {"epochs": 0})
    return folder


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="package")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half seconds with beats, not a whole number of frames at any rate."""
    samples = media.music(TRACK_S + 0.0071, SAMPLE_RATE, 2)
    return media.write_sound(tmp_path_factory.mktemp("track") / "track.wav", samples, SAMPLE_RATE)


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen small pictures, each of two colours."""
    folder = tmp_path_factory.mktemp("pictures") / "images"
    folder.mkdir()
    random = np.random.default_rng(4)
    for index in range(19):
        pixels = np.empty((24, 24, 3), np.uint8)
        pixels[:12], pixels[12:] = random.integers(0, 256, (2, 3))
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


class Answer(NamedTuple):
    """What the command line said."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """Run the command line in this process."""
    import signal

    from asha_ray.cli.main import main

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: Any) -> Answer:
        monkeypatch.setattr(sys, "argv", ["asha-ray", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Answer(int(caught.value.code or 0), captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def frames_of(path: Path) -> np.ndarray:
    """All decoded frames `[n, H * 3 / 2, W]` uint8, luma and chroma."""
    with av.open(f"file:{path}") as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


@pytest.fixture
def decoded() -> Callable[[Path], np.ndarray]:
    return frames_of


def own_processes(mark: str) -> list[psutil.Process]:
    """Processes that this one has started, and those below, whose command line holds `mark`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def descendants() -> Callable[[str], list[psutil.Process]]:
    return own_processes
