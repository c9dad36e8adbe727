"""`sample`: novel pictures from a model, and a contact sheet of them."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from asha_ray.errors import ModelError, SpecError
from asha_ray.farm.models import Model, load_model
from asha_ray.progress import NullProgress, Progress
from asha_ray.storage import join, storage_of
from asha_ray.vae.sheets import contact_sheet, png_bytes
from asha_ray.values import ByteArray, FloatArray

MAX_COUNT = 10_000
SHEET_LIMIT = 120
BATCH = 16


@dataclass(frozen=True)
class SampleResult:
    """The folder, how many pictures are in it, and the sheet."""

    output: str
    count: int
    sheet: str


def sample(
    model: str,
    out: str,
    *,
    source: str = "prior",
    count: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> SampleResult:
    """Draw pictures that were never seen.

    Args:
        model: a model directory.
        out: a folder for the pictures and `sheet.png`.
        source: `prior`, a standard normal; or `keyframes`, a random mixture of two neighbours
            among them.
        count: how many.
        seed: which.
        progress: hears of each picture.

    Raises:
        AshaError: one of its kinds.
    """
    progress = progress or NullProgress()
    if source not in ("prior", "keyframes"):
        raise SpecError(f"from: there is no '{source}'; there are prior and keyframes")
    if not 1 <= count <= MAX_COUNT:
        raise SpecError(f"count: from 1 to {MAX_COUNT}, not {count}")
    sheet_uri = join(out, "sheet.png")
    storage_of(out).check_writable(sheet_uri)
    loaded = load_model(model)
    latents = _latents(loaded, source, count, seed)
    progress.stage("drawing", count, "pictures")
    shown: list[ByteArray] = []
    for start in range(0, count, BATCH):
        for offset, picture in enumerate(loaded.decode(latents[start : start + BATCH])):
            uri = join(out, f"{start + offset:05d}.png")
            storage_of(uri).write(uri, png_bytes(Image.fromarray(picture)))
            if len(shown) < SHEET_LIMIT:
                shown.append(picture)
            progress.advance()
    storage_of(sheet_uri).write(sheet_uri, png_bytes(contact_sheet(np.stack(shown))))
    return SampleResult(out, count, sheet_uri)


def _latents(model: Model, source: str, count: int, seed: int) -> FloatArray:
    random = np.random.default_rng(seed)
    if source == "prior":
        return random.standard_normal((count, model.latent_dim), dtype=np.float32)
    keyframes = model.keyframes
    if not len(keyframes):
        raise ModelError("sampling from keyframes: the model has none; use --from prior")
    first = random.integers(len(keyframes), size=count)
    share = random.random((count, 1), dtype=np.float32)
    second = (first + 1) % len(keyframes)
    return np.asarray(keyframes[first] * (1 - share) + keyframes[second] * share, np.float32)
