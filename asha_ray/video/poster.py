"""What a video looks like at a glance: its most telling frame, and a strip of frames all along it.

Of a long video only keyframes are decoded, each at the place that was sought, so that three hours
take no longer than a minute.
"""

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from asha_ray.errors import EncodeError, VideoError
from asha_ray.ffmpeg import INPUT_OPTIONS, file_url
from asha_ray.values import Size
from asha_ray.video.probe import MAX_PIXELS

NUM_PLACES = 24
POSTER_WIDTH = 1280
JPEG_QUALITY = 88
STRIP_FRAMES, STRIP_HEIGHT, STRIP_GAP = 8, 180, 4
BACKGROUND = (11, 11, 18)
"""Near-black, as the pages that a strip stands on."""
EXACT_S = 30.0
"""In a video up to this long a place is a frame; in a longer one the keyframe before it."""
NEARLY = 0.8
"""Of the best frame's score: as telling as that, to whoever looks."""
GLANCE_WIDTH = 160
THUMBNAIL_SIDE, THUMBNAIL_BYTES = 160, 6000


def poster_and_strip(path: Path, poster: Path, strip: Path, choice: int = 0) -> None:
    """Write a video's poster and its strip as JPEG files.

    The poster is one of the frames with the most colour and detail of 24, at the video's size up to
    1280 pixels wide; the strip shows 8 frames side by side, each 180 pixels high.

    Args:
        path: a local video, in BT.709 limited range.
        poster: where the poster goes.
        strip: where the strip goes.
        choice: which of the frames that are nearly as telling as the best; videos of one series
            would all have the same picture.

    Raises:
        VideoError: if no frame of it decodes.
        EncodeError: if a picture cannot be written.
    """
    try:
        place = _telling([_liveliness(frame) for frame in _frames(path, NUM_PLACES)], choice)
        telling = _picture(next(islice(_frames(path, NUM_PLACES), place, None)))
        shown = [_picture(frame) for frame in _frames(path, STRIP_FRAMES, STRIP_HEIGHT)]
    except (av.FFmpegError, IndexError, ValueError, OverflowError) as error:
        raise VideoError(f"drawing {path}: no frame of it can be decoded ({error})") from error
    telling.thumbnail((POSTER_WIDTH, telling.height), Image.Resampling.LANCZOS)
    for picture, target in ((telling, poster), (_side_by_side(shown), strip)):
        try:
            target.write_bytes(_jpeg(picture, JPEG_QUALITY))
        except OSError as error:
            raise EncodeError(
                f"drawing {path}: {target.name} cannot be written: {error}"
            ) from error


def _telling(scores: list[float], choice: int) -> int:
    """The place of one of the best."""
    good = [place for place, score in enumerate(scores) if score >= NEARLY * max(scores)]
    return good[choice % len(good)]


def thumbnail(path: Path) -> bytes:
    """A poster as a JPEG of at most 160 pixels a side and 6 kB, to stand within a page.

    Raises:
        VideoError: if it is no picture.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise VideoError(f"reading poster {path}: it is no JPEG ({error})") from error
    side = THUMBNAIL_SIDE
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in (82, 70, 55, 40):
            if len(content := _jpeg(picture, quality)) < THUMBNAIL_BYTES:
                return content
        side = side * 3 // 4


def _frames(path: Path, count: int, height: int = 0) -> Iterator[Any]:
    """Frames at places spread evenly over a video, RGB, of one height where it is given."""
    with av.open(file_url(path), options=INPUT_OPTIONS) as container:
        video = container.streams.video[0]
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        video.thread_type = "SLICE"  # threads of whole frames would each want one before the first
        duration = video.duration or 0
        exact = duration * video.time_base <= EXACT_S
        if not exact:
            video.codec_context.skip_frame = "NONKEY"
        for index in range(count):
            place = duration * (2 * index + 1) // (2 * count)
            container.seek(place, stream=video)
            frame = None
            for frame in container.decode(video):
                if not exact or frame.pts >= place:
                    break
            if frame is None:
                raise ValueError(f"nothing decodes at {float(place * video.time_base):.1f} s")
            yield _rgb(frame, _scaled((frame.width, frame.height), height))


def _scaled(size: Size, height: int) -> Size:
    width = round(size[0] * height / size[1]) if height else size[0]
    return max(1, width), height or size[1]


def _rgb(frame: Any, size: Size) -> Any:
    return frame.reformat(
        *size,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation="LANCZOS",
    )


def _picture(frame: Any) -> Image.Image:
    return Image.fromarray(frame.to_ndarray())


def _liveliness(frame: Any) -> float:
    """How much colour and detail a frame has, and a little for its light: 0 if it is black.

    Colour as in Hasler and Süsstrunk, Measuring Colourfulness in Natural Images (2003).
    """
    height = max(1, round(frame.height * GLANCE_WIDTH / frame.width))
    small = frame.reformat(GLANCE_WIDTH, height, interpolation="AREA").to_ndarray()
    red, green, blue = np.moveaxis(small.astype(np.float32), 2, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    colour = spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    light = (red + green + blue) / 3
    detail = np.abs(np.diff(light, axis=0)).mean() + np.abs(np.diff(light, axis=1)).mean()
    return float((1 + colour) * (1 + detail) - 1 + light.mean() / 255)


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    step = pictures[0].width + STRIP_GAP
    width = step * len(pictures) - STRIP_GAP
    sheet = Image.new("RGB", (width, pictures[0].height), BACKGROUND)
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index * step, 0))
    return sheet


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    # Whole chroma: bright colours on black would bleed.
    picture.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()
