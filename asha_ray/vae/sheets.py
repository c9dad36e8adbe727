"""Sheets of pictures: originals beside reconstructions, progress over epochs, contact sheets."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from asha_ray.values import ByteArray

GAP = 6
BACKGROUND = (11, 11, 18)
INK = (216, 216, 228)
CAPTION_HEIGHT = 18
MAX_CELL = 256


def contact_sheet(images: ByteArray, columns: int | None = None) -> Image.Image:
    """Pictures `[n, H, W, 3]` uint8 in rows, with gaps between them."""
    columns = columns or max(1, round(len(images) ** 0.5 * 1.2))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    return _grid([[_cell(picture) for picture in row] for row in rows])


def reconstruction_sheet(originals: ByteArray, reconstructions: ByteArray) -> Image.Image:
    """Originals `[n, H, W, 3]` above their reconstructions, as many columns as pictures."""
    return _grid(
        [[_cell(picture) for picture in row] for row in (originals, reconstructions)],
        ["originals", "reconstructions"],
    )


def progress_strip(originals: ByteArray, rows: Sequence[tuple[str, ByteArray]]) -> Image.Image:
    """The same few pictures over the epochs: a captioned row an epoch, originals first."""
    labelled = [("originals", originals), *rows]
    return _grid(
        [[_cell(picture, 128) for picture in pictures] for _, pictures in labelled],
        [label for label, _ in labelled],
    )


def _cell(picture: ByteArray, side: int = MAX_CELL) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _grid(rows: Sequence[Sequence[Image.Image]], captions: Sequence[str] = ()) -> Image.Image:
    width = max(image.width for row in rows for image in row)
    height = max(image.height for row in rows for image in row)
    step_x, caption = width + GAP, CAPTION_HEIGHT if captions else 0
    step_y = height + GAP + caption
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + len(rows) * step_y), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for row_index, row in enumerate(rows):
        top = GAP + row_index * step_y
        if captions:
            draw.text((GAP, top + 2), captions[row_index], fill=INK)
        for column, image in enumerate(row):
            sheet.paste(image, (GAP + column * step_x, top + caption))
    return sheet


def png_bytes(image: Image.Image, compress_level: int = 6) -> bytes:
    """A picture as a PNG file's content; `compress_level` from 0, fast, to 9, small."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def spread(num_items: int, count: int) -> np.ndarray:
    """At most `count` indices spread evenly over `num_items`."""
    return np.unique(np.linspace(0, num_items - 1, min(count, num_items)).round().astype(int))
