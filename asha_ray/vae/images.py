"""The one gate through which an artist's images come in.

Any size, mode or orientation: EXIF rotation is applied, colour profiles are converted to sRGB,
transparency is laid on black, 16-bit and grey become 8-bit RGB. A picture's pixels are counted by
its header before anything is decoded.
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from asha_ray.errors import ImageError
from asha_ray.values import ByteArray, Size

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm",
     ".avif", ".tga", ".jp2", ".pnm"}
)  # fmt: skip
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "TGA", "JPEG2000")
MAX_PIXELS = 256_000_000
LARGE_PIXELS = 32_000_000
"""A few kilobytes may unpack to more; such pictures are read one at a time."""
BAND_PIXELS = 4_000_000
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise on damage. One bad picture must not end a training."""

_large = threading.Lock()


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is a picture this gate knows."""
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")


def load_image(path: str | Path, size: Size, fit: str = "crop") -> ByteArray:
    """Read one picture as `[H, W, 3]` uint8 sRGB.

    Args:
        path: a local file.
        size: width and height of the result.
        fit: `crop` fills and cuts the rest, `pad` adds black, `stretch` changes proportions.

    Raises:
        ImageError: if it cannot be read; the message is the reason alone.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{width}x{height} is more than {MAX_PIXELS:,} pixels")
            if image.format == "JPEG":
                image.draft("RGB", (size[0] * 2, size[1] * 2))
            width, height = image.size
            with _large if width * height > LARGE_PIXELS else nullcontext():
                ImageOps.exif_transpose(image, in_place=True)  # else it copies what is upright
                return np.asarray(_fitted(_to_rgb(image), size, fit))
    except UnidentifiedImageError as error:
        raise ImageError("it is no picture of a known format") from error
    except UNREADABLE as error:
        raise ImageError(f"it is damaged ({str(error)[:200]})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"it has too many pixels ({error})") from error


@contextmanager
def quiet_reading() -> Iterator[None]:
    """Keep Pillow's remarks on metadata from people; enter it once, around all reading threads.

    Warnings are filtered for the whole process, so that a thread must not do it for itself.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _fitted(picture: Image.Image, size: Size, fit: str) -> Image.Image:
    method = Image.Resampling.LANCZOS
    if picture.size == size:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, method)
    if fit == "pad":
        return ImageOps.pad(picture, size, method, color=(0, 0, 0))
    return picture.resize(size, method, reducing_gap=3.0)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Plain sRGB, a band of rows at a time: what it goes through takes several times the memory."""
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    bands = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    highest = 0.0
    if _is_deep_grey(image):  # of the whole picture, since it tells the scale
        highest = max(float(_values(image.crop(band)).max(initial=0)) for band in bands)
    rgb = Image.new("RGB", image.size)
    for band in bands:
        rgb.paste(_band_to_rgb(image.crop(band), highest), band)
    return rgb


def _band_to_rgb(image: Image.Image, highest: float) -> Image.Image:
    if _is_deep_grey(image):
        return _from_deep_grey(image, highest)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        flat = Image.alpha_composite(black, rgba).convert("RGB")
        return _to_srgb(flat, image.info.get("icc_profile"))
    if image.mode in ("RGB", "CMYK", "L"):
        return _to_srgb(image, image.info.get("icc_profile"))
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a damaged profile, or one for another mode: use the plain values
        if converted is not None:
            return converted
    return image.convert("RGB")


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or image.mode in ("I", "F")


def _values(image: Image.Image) -> NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image, np.float64))


def _from_deep_grey(image: Image.Image, highest: float) -> Image.Image:
    """8-bit grey of a deep one, whose highest value tells what its values mean."""
    # 16-bit files arrive as I;16 or I; floats mean 0..1 or 0..255.
    if image.mode == "F":
        scale = 255.0 if highest <= 1 else 1.0
    else:
        scale = 1 / 257 if image.mode != "I" or highest > 255 else 1.0
    grey = np.clip(np.rint(_values(image) * scale), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
