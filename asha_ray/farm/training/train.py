"""Training from spec to model directory, with Ray Train."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from asha_ray.errors import AshaError, FarmError, ModelError, ResourceError, SpecError
from asha_ray.farm.cores import cpu_threads
from asha_ray.farm.on_ray.capacity import Capacity, Resources
from asha_ray.farm.on_ray.cluster import (
    ON_CPU,
    ON_GPU,
    await_first_node,
    read_capacity,
    read_growth,
    require_cpu,
)
from asha_ray.farm.on_ray.runtime import own_error, ray_cluster
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.training.dataset import (
    ImageShards,
    Skipped,
    list_images,
    read_shards,
    report_skipped,
)
from asha_ray.farm.training.train_worker import MODEL, NUMBERS, TrainJob, finish_model, train_loop
from asha_ray.progress import NullProgress, Progress
from asha_ray.scratch import scratch_folder
from asha_ray.spec import TrainSpec, parse_size
from asha_ray.storage import basename, join, parent, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import digest_of
from asha_ray.vae.architecture import Architecture, architecture_of, build
from asha_ray.vae.memory import available_bytes, training_bytes
from asha_ray.vae.model_dir import CONFIG, FILES
from asha_ray.vae.training import num_batches

RUN_NAME = "run"
SETTINGS = "settings.json"
DONE = "done.json"
"""Beside a run's settings once its model is published: of how many epochs and images."""
POLL_S = 0.5
CHECKPOINT_S = 30.0
MAX_FAILURES = 3


@dataclass(frozen=True)
class TrainResult:
    """What a training left.

    Attributes:
        output: the model directory.
        images: that were learned.
        skipped: that could not be read.
        epochs: in all, earlier ones of a resumed run too.
        training: the summary that `config.json` holds.
    """

    output: str
    images: int
    skipped: int
    epochs: int
    training: dict[str, Any]


def train(
    spec: TrainSpec, progress: Progress | None = None, *, checkpoint_s: float = CHECKPOINT_S
) -> TrainResult:
    """Train a model on a folder of images and write its directory.

    Args:
        spec: everything about it.
        progress: hears how far it is.
        checkpoint_s: seconds between checkpoints.

    Raises:
        AshaError: one of its kinds, before work starts where that can be known.
    """
    progress = progress or NullProgress()
    spec = absolute_paths(spec)
    architecture = architecture_of(
        spec.preset, parse_size(spec.size), spec.latent, spec.encoder_filters, spec.decoder_filters
    )
    if spec.run.resume and spec.epochs > 0 and (done := _done(spec)):
        return done
    uris = list_images(spec.images)
    config_uri = join(spec.output, CONFIG)
    storage_of(config_uri).check_writable(config_uri)
    if "RAY_ADDRESS" not in os.environ:  # a cluster's workers have other memory than this machine
        check_training_memory(architecture, spec)
    skipped: list[Skipped] = []
    if spec.epochs == 0:
        num_images = _write_untrained(spec, architecture, uris, progress, skipped)
    else:
        with ray_cluster(dashboard=True):
            growth = read_growth()
            await_first_node(read_capacity(growth), [ON_GPU, ON_CPU], progress.note)
            capacity = read_capacity(growth)
            scaling = _scaling(spec, capacity)
            if "RAY_ADDRESS" in os.environ and not scaling.use_gpu:
                _check_nodes_memory(architecture, spec, capacity)
            _tell_wait(scaling, capacity, progress)
            num_images = _train_on_ray(spec, scaling, uris, progress, skipped, checkpoint_s)
        counts = (spec.epochs, num_images, len(skipped))
        done_uri = join(_runs_uri(spec), DONE)
        storage_of(done_uri).write(done_uri, json.dumps(counts).encode())
    return TrainResult(spec.output, num_images, len(skipped), spec.epochs, _summary(spec.output))


def check_training_memory(architecture: Architecture, spec: TrainSpec) -> None:
    """Refuse what would not fit in memory, before anything starts.

    Raises:
        ResourceError: with the figures.
    """
    needed = training_bytes(architecture, spec.batch_size)
    if torch.cuda.is_available():
        available, where, together = torch.cuda.mem_get_info()[1], "GPU memory", 1
    else:
        available, where, together = available_bytes(), "memory", spec.run.workers
    if needed * together > available and spec.epochs > 0:
        width, height = architecture.image_size
        raise ResourceError(
            f"training at {width}x{height} with batches of {spec.batch_size}: each worker needs "
            f"about {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB of {where} are free; use a "
            "smaller --batch-size or --size"
        )


def _check_nodes_memory(architecture: Architecture, spec: TrainSpec, capacity: Capacity) -> None:
    """Refuse what would not fit on any node of a cluster.

    Raises:
        ResourceError: with the figures.
    """
    needed, largest = training_bytes(architecture, spec.batch_size), capacity.largest("memory")
    if needed > largest > 0:
        raise ResourceError(
            f"training with batches of {spec.batch_size}: each worker needs about "
            f"{needed / 1e9:.1f} GB, and the cluster's largest node has {largest / 1e9:.1f} GB; "
            "use a smaller --batch-size or --size"
        )


def _write_untrained(
    spec: TrainSpec,
    architecture: Architecture,
    uris: list[str],
    progress: Progress,
    skipped: list[Skipped],
) -> int:
    progress.stage("reading images", len(uris), "images")
    images = ImageShards(
        list(read_shards(uris, architecture.image_size, spec.fit, progress, skipped))
    )
    report_skipped(skipped, len(uris), progress)
    with scratch_folder("model") as folder:
        vae = build(architecture, spec.seed)
        (folder / "model").mkdir()
        finish_model(folder / "model", vae, images, spec, [], torch.device("cpu"))
        _publish(folder / "model", spec.output)
    return len(images)


def _train_on_ray(
    spec: TrainSpec,
    scaling: ScalingConfig,
    uris: list[str],
    progress: Progress,
    skipped: list[Skipped],
    checkpoint_s: float,
) -> int:
    progress.stage("reading images", len(uris), "images")
    shards = read_shards(uris, parse_size(spec.size), spec.fit, progress, skipped)
    references, num_images = [], 0
    for shard in shards:
        num_images += len(shard)
        references.append(ray.put(shard))
    report_skipped(skipped, len(uris), progress)

    steps = num_batches(num_images, spec.batch_size, spec.run.workers) * spec.epochs
    board = ray.remote(num_cpus=0)(_Board).remote()
    job = TrainJob(spec, tuple(references), board, checkpoint_s)
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"job": job},
        scaling_config=scaling,
        run_config=_run_config(spec),
    )
    _prepare_run(spec)
    progress.stage("training", steps, "steps")

    def tell_workers() -> None:
        progress.tell(worker=_taken(scaling), workers=scaling.num_workers)

    with _relayed(board, progress, tell_workers):
        result = _fit(trainer, board)
    progress.tell(workers=0)
    with result.checkpoint.as_directory() as folder:
        trained = Path(folder) / MODEL
        num_epochs = int(json.loads((Path(folder) / NUMBERS).read_text())["epoch"])
        if num_epochs > spec.epochs or not trained.is_dir():
            raise _gone_past(spec)
        _publish(trained, spec.output)
    return num_images


def _fit(trainer: TorchTrainer, board: Any) -> Any:
    try:
        result = trainer.fit()
    except Exception as error:
        raise _own_train_error(error) from error
    if reason := ray.get(board.reason.remote()):
        raise ModelError(reason)
    if result.checkpoint is None:
        raise FarmError("training: it ended without a checkpoint; run it again with --debug")
    return result


def _own_train_error(error: BaseException) -> AshaError:
    """The expected error behind a failure of Ray Train, wherever it put it."""
    failures = [error, *getattr(error, "worker_failures", {}).values()]
    for failure in failures:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, RayTaskError):
                return own_error(seen)
            if isinstance(seen, AshaError):
                return seen
            seen = seen.__cause__
    return FarmError(
        f"training on Ray: {error}; run it again with --resume to go on from the last checkpoint"
    )


class _Board:
    """Counts steps, for the driver to read: a worker cannot call back."""

    def __init__(self) -> None:
        self._count, self._detail, self._reason = 0, "", ""

    def advance(self, detail: str) -> None:
        self._count += 1
        self._detail = detail

    def take(self) -> tuple[int, str]:
        count, self._count = self._count, 0
        return count, self._detail

    def give_up(self, reason: str) -> None:
        self._reason = reason

    def reason(self) -> str:
        return self._reason


@contextmanager
def _relayed(board: Any, progress: Progress, on_begin: Callable[[], None]) -> Iterator[None]:
    """Pass what the board counts on to `progress` while the context lasts.

    `on_begin` is called at the first step: until then workers may wait for a place.
    """
    ended = threading.Event()

    def relay() -> None:
        begun = False
        while not ended.wait(POLL_S):
            try:
                count, detail = ray.get(board.take.remote())
            except RayError:
                return  # the cluster is gone; whoever waits for the training is told
            if count and not begun:
                begun = True
                on_begin()
            if count:
                progress.advance(count, detail)

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10 * POLL_S)
        ray.kill(board)


def _scaling(spec: TrainSpec, capacity: Capacity) -> ScalingConfig:
    """A GPU for each worker where the cluster has or may come to have as many, else its CPUs.

    Raises:
        ResourceError: if it cannot hold so many workers, and will not.
    """
    num_workers = spec.run.workers
    require_cpu(capacity)
    use_gpu = _holds(capacity, num_workers, ON_GPU)
    if not use_gpu and not _holds(capacity, num_workers, ON_CPU):
        raise ResourceError(
            f"training with {num_workers} workers: the cluster has "
            f"{capacity.total().get('CPU', 0):.0f} CPUs; use fewer --workers"
        )
    cpus = 1
    while not use_gpu and cpus < cpu_threads() and _holds(capacity, num_workers, {"CPU": cpus + 1}):
        cpus += 1
    # The controller takes none, so all of a small machine can train.
    return ScalingConfig(
        num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}
    )


def _taken(scaling: ScalingConfig) -> dict[str, float]:
    """What each worker takes of a cluster."""
    return {"CPU": float(scaling.resources_per_worker["CPU"]), "GPU": float(scaling.use_gpu)}


def _tell_wait(scaling: ScalingConfig, capacity: Capacity, progress: Progress) -> None:
    if capacity.now(_taken(scaling)) < scaling.num_workers:
        progress.note(
            "the cluster's autoscaler must add nodes for this training; it waits for them"
        )


def _holds(capacity: Capacity, num_workers: int, each: Resources) -> bool:
    if capacity.growth.is_unknown and not capacity.now(each):
        return each == ON_CPU  # what no node has may never come
    return capacity.at_most(each) >= num_workers


def _run_config(spec: TrainSpec) -> RunConfig:
    storage: dict[str, Any] = {"storage_path": _runs_uri(spec)}
    if is_s3(spec.output):
        storage = {
            "storage_path": _runs_uri(spec).removeprefix("s3://"),
            "storage_filesystem": _s3_filesystem(),
        }
    return RunConfig(
        name=RUN_NAME,
        failure_config=FailureConfig(max_failures=MAX_FAILURES),
        checkpoint_config=CheckpointConfig(num_to_keep=1),
        **storage,
    )


def _s3_filesystem() -> Any:
    """The same endpoint and region as boto3 has; credentials are found anew by each worker."""
    import boto3
    from pyarrow.fs import S3FileSystem

    meta = boto3.client("s3").meta
    options: dict[str, Any] = {"region": meta.region_name}
    if "amazonaws.com" not in meta.endpoint_url:
        scheme, _, endpoint = meta.endpoint_url.partition("://")
        endpoint = endpoint.rpartition("@")[2]  # a password in it would stand in pyarrow's errors
        options |= {"scheme": scheme, "endpoint_override": endpoint}
    return S3FileSystem(**options)


def _runs_uri(spec: TrainSpec) -> str:
    """Checkpoints lie in the work root beside the model, so that the model is nothing but that."""
    return join(parent(spec.output), ".asha", "training", basename(spec.output))


def can_resume(spec: TrainSpec) -> bool:
    """Whether there is an earlier run of the same training to go on from."""
    uri = join(_runs_uri(spec), SETTINGS)
    storage = storage_of(uri)
    return storage.size(uri) is not None and storage.read(uri).decode() == _mark(spec)


def _prepare_run(spec: TrainSpec) -> None:
    """Clear away what an earlier run has left, unless it is to be resumed."""
    storage, uri = storage_of(spec.output), _runs_uri(spec)
    if spec.run.resume:
        return
    for entry in list(storage.list(uri)):
        storage.delete(entry.uri)
    for entry in list(storage.list(join(spec.output, "samples"))):
        storage.delete(entry.uri)
    storage.write(join(uri, SETTINGS), _mark(spec).encode())


def _mark(spec: TrainSpec) -> str:
    """The same for runs of which one may go on where the other stopped."""
    return digest_of(spec.model_dump(mode="json", exclude={"run", "epochs", "images", "output"}))


def _require_earlier_run(spec: TrainSpec) -> None:
    storage, settings_uri = storage_of(spec.output), join(_runs_uri(spec), SETTINGS)
    if storage.size(settings_uri) is None:
        raise SpecError(
            f"resuming {spec.output}: there is no earlier run of it; leave out --resume"
        )
    if storage.read(settings_uri).decode() != _mark(spec):
        raise SpecError(
            f"resuming {spec.output}: the earlier run had other settings; give the same, "
            "or leave out --resume to begin anew"
        )


def _done(spec: TrainSpec) -> TrainResult | None:
    """What the earlier run has left, if that is all that is asked for.

    Raises:
        SpecError: if there is no earlier run, or it had other settings or went further.
    """
    _require_earlier_run(spec)
    storage, done_uri = storage_of(spec.output), join(_runs_uri(spec), DONE)
    if storage.size(done_uri) is None:
        return None
    epochs, images, skipped = json.loads(storage.read(done_uri))
    if epochs > spec.epochs:
        raise _gone_past(spec)
    is_whole = all(storage.size(join(spec.output, name)) is not None for name in FILES)
    if epochs < spec.epochs or not is_whole:
        return None
    return TrainResult(spec.output, images, skipped, epochs, _summary(spec.output))


def _gone_past(spec: TrainSpec) -> SpecError:
    return SpecError(
        f"resuming {spec.output}: the earlier run went past {spec.epochs} epochs already; "
        "give more --epochs"
    )


def _publish(folder: Path, output: str) -> None:
    # config.json last: a directory without it is no model yet
    for name in sorted(FILES, key=lambda name: name == CONFIG):
        uri = join(output, name)
        storage_of(uri).upload(folder / name, uri)


def _summary(output: str) -> dict[str, Any]:
    from asha_ray.farm.models import local_model
    from asha_ray.vae.model_dir import read_config

    with local_model(output) as folder:
        return read_config(folder, output)[1]
