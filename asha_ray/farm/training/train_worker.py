"""What one training worker does, in a process that Ray Train started.

All that may differ after a restart is a function of seed, epoch and step, so a run that was
killed goes on from its last checkpoint as if nothing had happened.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import torch
from PIL import Image
from ray import train
from ray.train.torch import get_device, prepare_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Adam, Optimizer

from asha_ray.errors import ModelError
from asha_ray.farm.training.dataset import ImageShards
from asha_ray.scratch import scratch_folder
from asha_ray.spec import TrainSpec, parse_size
from asha_ray.storage import join, storage_of
from asha_ray.vae.architecture import Vae, architecture_of, build
from asha_ray.vae.generator import encode_images
from asha_ray.vae.model_dir import write_model
from asha_ray.vae.sheets import png_bytes, progress_strip, reconstruction_sheet, spread
from asha_ray.vae.training import (
    epoch_batches,
    learning_rate_at,
    num_batches,
    psnr_db,
    to_tensor,
    train_step,
)
from asha_ray.values import ByteArray

STATE, NUMBERS, STRIP, MODEL = "state.safetensors", "numbers.json", "strip.npy", "model"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)
"""What reading a damaged checkpoint raises; a RuntimeError is torch's, of shapes."""
SHEET_IMAGES = 8
FAST = 1  # compression of sheets that are drawn after every epoch
STRIP_IMAGES, STRIP_ROWS, STRIP_SIDE = 6, 12, 128


@dataclass(frozen=True)
class TrainJob:
    """What a worker is given.

    Attributes:
        spec: the training's settings.
        shards: references to `[64, H, W, 3]` uint8 arrays in Ray's object store.
        board: an actor that hears of progress.
        checkpoint_s: seconds between checkpoints; the last epoch always leaves one.
    """

    spec: TrainSpec
    shards: tuple[Any, ...]
    board: Any
    checkpoint_s: float


@dataclass
class _State:
    """Where a run is; all of it is in a checkpoint."""

    epoch: int
    metrics: list[dict[str, float]]
    strip: list[tuple[int, ByteArray]]


def train_loop(config: dict[str, TrainJob]) -> None:
    """Train a VAE; rank 0 leaves sheets, metrics and at the end the model."""
    job = config["job"]
    spec = job.spec
    context = train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    images = ImageShards(ray.get(list(job.shards)))
    device = _device(num_workers)
    vae, optimizer, state = _start(spec, device)
    model = prepare_model(vae, move_to_device=False)
    keeper = _Keeper(job, vae, optimizer, state, images, device) if rank == 0 else None

    for epoch in range(state.epoch, spec.epochs):
        started = time.monotonic()
        sums = _train_epoch(job, model, optimizer, images, device, epoch, rank, num_workers)
        metrics = _mean_over_workers(sums, device, num_workers)
        metrics |= {"epoch": epoch + 1, "seconds": round(time.monotonic() - started, 3)}
        if not np.isfinite(metrics["loss"]):
            # All workers see it at once. Raising would have Ray Train begin anew, to the same end.
            job.board.give_up.remote(
                f"training, epoch {epoch + 1}: the loss is no longer a number; "
                "use a lower --learning-rate"
            )
            return
        if keeper is None:
            train.report(metrics)
        else:
            keeper.end_epoch(metrics)


def _device(num_workers: int) -> torch.device:
    """The GPU that Ray gave this worker; Ray knows none of Apple's, which one worker may take."""
    device: torch.device = get_device()
    if device.type == "cpu" and num_workers == 1 and torch.backends.mps.is_available():
        return torch.device("mps")
    return device


def _train_epoch(
    job: TrainJob,
    model: torch.nn.Module,
    optimizer: Optimizer,
    images: ImageShards,
    device: torch.device,
    epoch: int,
    rank: int,
    num_workers: int,
) -> torch.Tensor:
    """One epoch; returns sums of loss, reconstruction, KL and images, over this worker's share."""
    spec = job.spec
    model.train()
    sums = torch.zeros(4, dtype=torch.float64)
    batches = epoch_batches(
        len(images),
        spec.latent,
        batch_size=spec.batch_size,
        seed=spec.seed,
        epoch=epoch,
        rank=rank,
        num_workers=num_workers,
    )
    steps = num_batches(len(images), spec.batch_size, num_workers)
    for index, batch in enumerate(batches):
        rate = learning_rate_at(
            epoch * steps + index, spec.epochs * steps, spec.learning_rate, spec.schedule
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels = to_tensor(images.take(batch.indices), device)
        noise = torch.from_numpy(np.ascontiguousarray(batch.noise)).to(device)
        loss = train_step(
            model, optimizer, pixels, noise, kl_weight=spec.kl_weight, weight=batch.weight
        )
        count = len(batch.indices) if batch.weight else 0
        values = torch.stack([loss.total, loss.reconstruction, loss.kl]).double().cpu()
        sums += torch.cat([values * count, torch.tensor([count], dtype=torch.float64)])
        if rank == 0:
            job.board.advance.remote(f"epoch {epoch + 1}, loss {float(values[0]):.0f}")
    return sums


def _mean_over_workers(
    sums: torch.Tensor, device: torch.device, num_workers: int
) -> dict[str, float]:
    if num_workers > 1:
        # float32 is exact enough for a report, and every backend can reduce it
        together = sums.to(device, torch.float32)
        torch.distributed.all_reduce(together)
        sums = together.cpu().double()
    total, reconstruction, kl = (float(value / sums[3]) for value in sums[:3])
    return {"loss": total, "reconstruction": reconstruction, "kl": kl}


def _start(spec: TrainSpec, device: torch.device) -> tuple[Vae, Adam, _State]:
    """A fresh model and optimizer, or those of the last checkpoint."""
    architecture = architecture_of(
        spec.preset, parse_size(spec.size), spec.latent, spec.encoder_filters, spec.decoder_filters
    )
    vae = build(architecture, spec.seed).to(device)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster
    optimizer = Adam(vae.parameters(), lr=spec.learning_rate)
    state = _State(0, [], [])
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            try:
                state = _restore(Path(folder), vae, optimizer)
            except UNREADABLE as error:
                raise ModelError(
                    f"resuming {spec.output}: its checkpoint is damaged ({str(error)[:200]}); "
                    "leave out --resume to begin anew"
                ) from error
    return vae, optimizer, state


def _restore(folder: Path, vae: Vae, optimizer: Adam) -> _State:
    """Where a run was when it left a checkpoint; of a damaged one, any of `UNREADABLE`."""
    tensors = load_file(folder / STATE)
    vae.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if "model." in name}
    )
    numbers = json.loads((folder / NUMBERS).read_text())
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam."):
            _, index, part = name.split(".")
            moments.setdefault(int(index), {})[part] = value
    plain = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": plain["param_groups"]})
    # Memory-mapped, so that a header cannot claim more memory than the file has bytes.
    pictures = np.load(folder / STRIP, mmap_mode="r", allow_pickle=False)
    if pictures.dtype != np.uint8:
        raise ValueError(f"{STRIP} holds {str(pictures.dtype)[:40]}, not pictures")
    rows = list(zip(numbers["strip_epochs"], np.array(pictures), strict=True))
    return _State(int(numbers["epoch"]), numbers["metrics"], rows)


class _Keeper:
    """What rank 0 does after each epoch: sheets, metrics, checkpoints, and the model at last."""

    def __init__(
        self,
        job: TrainJob,
        vae: Vae,
        optimizer: Optimizer,
        state: _State,
        images: ImageShards,
        device: torch.device,
    ) -> None:
        self._job, self._vae, self._optimizer = job, vae, optimizer
        self._state, self._images, self._device = state, images, device
        self._shown = images.take(spread(len(images), SHEET_IMAGES))
        self._kept_at = time.monotonic()

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Leave what this epoch has to leave, and report it."""
        state, spec = self._state, self._job.spec
        state.epoch = int(metrics["epoch"])
        state.metrics.append(metrics)
        self._vae.eval()
        self._draw(state.epoch)
        lines = "".join(json.dumps(row) + "\n" for row in state.metrics)
        self._write("metrics.jsonl", lines.encode())
        last = state.epoch == spec.epochs
        if not last and time.monotonic() - self._kept_at < self._job.checkpoint_s:
            train.report(metrics)
            return
        with scratch_folder("checkpoint") as scratch:
            folder = scratch / "checkpoint"
            folder.mkdir()
            self._save(folder)
            if last:
                (folder / MODEL).mkdir()
                finish_model(
                    folder / MODEL, self._vae, self._images, spec, state.metrics, self._device
                )
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))
        self._kept_at = time.monotonic()

    def _draw(self, epoch: int) -> None:
        again = reconstruct(self._vae, self._shown, self._device)
        sheet = reconstruction_sheet(self._shown, again)
        self._write(f"samples/epoch-{epoch:04d}.png", png_bytes(sheet, FAST))
        thumbnails = [_thumbnail(picture) for picture in again[:STRIP_IMAGES]]
        self._state.strip.append((epoch, np.stack(thumbnails)))
        if len(self._state.strip) > 2 * STRIP_ROWS:
            self._state.strip = self._state.strip[1::2]
        picked = spread(len(self._state.strip), STRIP_ROWS)
        rows = [self._state.strip[index] for index in picked]
        originals = np.stack([_thumbnail(picture) for picture in self._shown[:STRIP_IMAGES]])
        strip = progress_strip(originals, [(f"epoch {number}", row) for number, row in rows])
        self._write("samples/progress.png", png_bytes(strip, FAST))

    def _save(self, folder: Path) -> None:
        tensors = {f"model.{name}": value for name, value in self._vae.state_dict().items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{part}": value for part, value in moments.items()}
        save_file(
            {name: value.cpu().contiguous() for name, value in tensors.items()}, folder / STATE
        )
        epochs, pictures = zip(*self._state.strip, strict=True)
        numbers = {
            "epoch": self._state.epoch,
            "metrics": self._state.metrics,
            "strip_epochs": epochs,
        }
        (folder / NUMBERS).write_text(json.dumps(numbers))
        np.save(folder / STRIP, np.stack(pictures), allow_pickle=False)

    def _write(self, name: str, data: bytes) -> None:
        uri = join(self._job.spec.output, *name.split("/"))
        storage_of(uri).write(uri, data)


def finish_model(
    folder: Path,
    vae: Vae,
    images: ImageShards,
    spec: TrainSpec,
    metrics: list[dict[str, float]],
    device: torch.device,
) -> None:
    """Write a trained model's directory: weights, keyframes, and how well it has learned."""
    vae.eval()
    random = np.random.default_rng(spec.seed) if spec.keyframes_from == "sample" else None
    keyframes = [
        encode_images(vae, images.take(part), str(device), random) for part in _parts(len(images))
    ]
    summary: dict[str, Any] = {
        "images": len(images),
        "epochs": spec.epochs,
        "preset": spec.preset,
        "batch_size": spec.batch_size,
        "learning_rate": spec.learning_rate,
        "schedule": spec.schedule,
        "kl_weight": spec.kl_weight,
        "keyframes_from": spec.keyframes_from,
        "seed": spec.seed,
        **quality(vae, images, device),
    }
    if metrics:
        summary |= {name: metrics[-1][name] for name in ("loss", "reconstruction", "kl")}
    write_model(folder, vae, np.concatenate(keyframes), summary)


def quality(vae: Vae, images: ImageShards, device: torch.device) -> dict[str, float]:
    """PSNR in dB, over all images, of the reconstructions and of the mean image in their place."""
    mean = sum(images.take(part).astype(np.float64).sum(0) for part in _parts(len(images)))
    mean_image = cast(np.ndarray, mean) / (255 * len(images))
    squares_model = squares_mean = 0.0
    for part in _parts(len(images)):
        originals = images.take(part)
        truth = originals / 255.0
        again = reconstruct(vae, originals, device) / 255.0
        squares_model += float(np.square(again - truth).mean((1, 2, 3)).sum())
        squares_mean += float(np.square(mean_image - truth).mean((1, 2, 3)).sum())
    return {
        "reconstruction_psnr_db": round(psnr_db(squares_model / len(images)), 2),
        "mean_image_psnr_db": round(psnr_db(squares_mean / len(images)), 2),
    }


@torch.inference_mode()
def reconstruct(vae: Vae, images: ByteArray, device: torch.device) -> ByteArray:
    """What the model makes of pictures `[n, H, W, 3]` uint8, through their `z_mean`."""
    mean, _ = vae.encoder(to_tensor(images, device))
    pictures = vae.decoder(mean).permute(0, 2, 3, 1)
    return cast(ByteArray, (pictures * 255).round().clamp(0, 255).byte().cpu().numpy())


def _parts(num_images: int, length: int = 16) -> list[range]:
    return [range(at, min(at + length, num_images)) for at in range(0, num_images, length)]


def _thumbnail(picture: ByteArray) -> ByteArray:
    image = Image.fromarray(picture)
    image.thumbnail((STRIP_SIDE, STRIP_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)
