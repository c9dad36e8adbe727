"""`demo`: the whole flow with nothing downloaded, from drawn images and composed music."""

from dataclasses import dataclass
from pathlib import Path

import soundfile
from PIL import Image

from asha_ray.errors import CheckError
from asha_ray.farm.on_ray.runtime import ray_cluster
from asha_ray.farm.rendering.render import RenderResult, render
from asha_ray.farm.tools.inspect import Inspection, inspect
from asha_ray.farm.training.train import train
from asha_ray.progress import NullProgress, Progress
from asha_ray.showcase.art import draw_gallery
from asha_ray.showcase.music import compose
from asha_ray.spec import RenderSpec, TrainSpec, build

NUM_IMAGES = 240
IMAGE_SIZE = (192, 192)
TRAINING = {
    "preset": "studio",
    "size": IMAGE_SIZE,
    "latent": 64,
    "epochs": 24,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "kl_weight": 0.5,
    "encoder_filters": (16, 32, 64, 96),
    "decoder_filters": (64, 32, 16),
}
LOOK = {"video": {"size": (576, 576)}, "motion": {"keyframe_gap": 0.75}}


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: its files, the render, and what the inspection found."""

    images: str
    audio: str
    model: str
    render: RenderResult
    inspection: Inspection


def demo(out: str, progress: Progress | None = None) -> DemoResult:
    """Make art and music, train, render, inspect.

    Args:
        out: a local folder.
        progress: hears how far it is.

    Raises:
        CheckError: if the finished video is not as it should be.
        AshaError: one of its other kinds.
    """
    progress = progress or NullProgress()
    folder = Path(out)
    images, audio, model = folder / "images", folder / "track.wav", folder / "model"
    _draw(images, progress)
    progress.stage("composing")
    track = compose()
    soundfile.write(audio, track.samples, track.sample_rate)
    spec = {"audio": audio, "model": model, "output": folder / "demo.mp4", **LOOK}
    with ray_cluster(dashboard=True):  # one for both
        train(build(TrainSpec, {"images": images, "output": model, **TRAINING}), progress)
        rendered = render(build(RenderSpec, spec), progress)
    progress.stage("inspecting")
    inspection = inspect(rendered.output)
    faults = [*inspection.problems, *inspection.remarks]
    if faults:
        raise CheckError(f"inspecting {rendered.output}: {'; '.join(faults)}")
    return DemoResult(str(images), str(audio), str(model), rendered, inspection)


def _draw(folder: Path, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    progress.stage("drawing", NUM_IMAGES, "images")
    for index, picture in enumerate(draw_gallery(NUM_IMAGES, IMAGE_SIZE)):
        Image.fromarray(picture).save(folder / f"ribbon-{index:03d}.png")
        progress.advance()
