"""The gate for an artist's images: upright sRGB comes out, or a reason why not."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from asha_ray.errors import ImageError
from asha_ray.vae import images
from asha_ray.vae.images import is_image_name, load_image, quiet_reading

WIDTH, HEIGHT = 48, 32
SIZE = (WIDTH, HEIGHT)
ICC_PROFILE = 34675
CORNERS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "grey": (90,) * 3}

UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture must be stored so that this EXIF orientation turns it upright."""


def quarters() -> Image.Image:
    """A picture whose four corners tell them apart."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    red, green, blue, grey = CORNERS.values()
    pixels[: HEIGHT // 2, : WIDTH // 2] = red
    pixels[: HEIGHT // 2, WIDTH // 2 :] = green
    pixels[HEIGHT // 2 :, : WIDTH // 2] = blue
    pixels[HEIGHT // 2 :, WIDTH // 2 :] = grey
    return Image.fromarray(pixels)


def centres(pixels: np.ndarray) -> np.ndarray:
    """The four colours in the middle of the quarters, `[4, 3]`."""
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return np.array([pixels[y, x] for y in rows for x in columns], np.int16)


def assert_upright(pixels: np.ndarray, tolerance: int = 0) -> None:
    assert pixels.dtype == np.uint8
    assert np.abs(centres(pixels) - np.array(list(CORNERS.values()))).max() <= tolerance


def png_of(width: int, height: int, bit_depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header claims a size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def blank_png(width: int, height: int, bit_depth: int, colour: int) -> bytes:
    """A PNG of zeros, all of which are there."""
    row = bytes(1 + width * {0: 1, 2: 3, 6: 4}[colour] * bit_depth // 8)
    content = png_of(width, height, bit_depth, colour)
    packed = zlib.compress(row * height, 1)
    idat = struct.pack(">I", len(packed)) + b"IDAT" + packed
    idat += struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    return content[:33] + idat + content[-12:]


def peak_bytes() -> int:
    """The most memory that this process has had, from here on."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def swapped_profile() -> bytes:
    """An ICC profile whose red primary is sRGB's green, and the other way round."""
    # sRGB's primaries and white, adapted to D50, as in the sRGB profile of the ICC
    red, green, blue = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"swap\0" + b"\0" * 79
    tags = {
        b"desc": name + b"\0" * (-len(name) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz(green),
        b"gXYZ": xyz(red),
        b"bXYZ": xyz(blue),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, data = struct.pack(">I", len(tags)), b""
    offset = 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", offset + len(data), len(value))
        data += value
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(data), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + table + data


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
    def test_exif_orientation_is_applied(
        self, tmp_path: Path, orientation: int, suffix: str
    ) -> None:
        stored = quarters()
        if orientation in UNDO:
            stored = stored.transpose(UNDO[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{suffix}"
        stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))

        assert_upright(load_image(path, SIZE), 12 if suffix == "jpg" else 0)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_unknown_orientation_is_none(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        quarters().save(tmp_path / "a.png", exif=exif)

        assert_upright(load_image(tmp_path / "a.png", SIZE))


class TestModes:
    def test_transparency_lies_on_black(self, tmp_path: Path) -> None:
        alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
        alpha[:, : WIDTH // 2], alpha[: HEIGHT // 2, WIDTH // 2 :] = 255, 128
        image = quarters()
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / "a.png")

        red, half_green, blue, nothing = centres(load_image(tmp_path / "a.png", SIZE))

        assert red.tolist() == list(CORNERS["red"])
        assert blue.tolist() == list(CORNERS["blue"])
        np.testing.assert_allclose(half_green, np.array(CORNERS["green"]) / 2, atol=1)
        assert nothing.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("kind", ["index", "table"])
    def test_palette_with_transparency(self, tmp_path: Path, kind: str) -> None:
        image = quarters().quantize(4)
        clear = image.getpixel((WIDTH - 1, HEIGHT - 1))
        table = bytes(0 if index == clear else 255 for index in range(4))
        image.save(tmp_path / "a.png", transparency=clear if kind == "index" else table)

        found = centres(load_image(tmp_path / "a.png", SIZE))

        np.testing.assert_allclose(found[:3], list(CORNERS.values())[:3], atol=3)
        assert found[3].tolist() == [0, 0, 0]

    def test_palette(self, tmp_path: Path) -> None:
        quarters().quantize(4).save(tmp_path / "a.png")

        assert_upright(load_image(tmp_path / "a.png", SIZE), 3)

    def test_rgb_with_a_transparent_colour(self, tmp_path: Path) -> None:
        quarters().save(tmp_path / "a.png", transparency=CORNERS["green"])

        found = centres(load_image(tmp_path / "a.png", SIZE))

        assert found[0].tolist() == list(CORNERS["red"])
        assert found[1].tolist() == [0, 0, 0]

    @pytest.mark.parametrize("suffix", ["jpg", "tif"])
    def test_cmyk(self, tmp_path: Path, suffix: str) -> None:
        quarters().convert("CMYK").save(tmp_path / f"a.{suffix}")

        assert_upright(load_image(tmp_path / f"a.{suffix}", SIZE), 16)

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_16_bit_grey_keeps_its_scale(self, tmp_path: Path, suffix: str) -> None:
        values = np.full((8, 8), 257 * 40, np.uint16)
        values[:4], values[4:, 4:] = 65535, 0
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")

        pixels = load_image(tmp_path / f"a.{suffix}", (8, 8))

        assert pixels[0, 0].tolist() == [255] * 3
        assert pixels[7, 0].tolist() == [40] * 3
        assert pixels[7, 7].tolist() == [0] * 3

    def test_dark_16_bit_grey_stays_dark(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((8, 8), 200, np.uint16)).save(tmp_path / "a.png")

        assert load_image(tmp_path / "a.png", (8, 8)).max() <= 1

    def test_16_bit_rgb(self, tmp_path: Path) -> None:
        rows = b"".join(b"\0" + struct.pack(">3H", 65535, 257 * 128, 0) * 8 for _ in range(8))

        def chunk(kind: bytes, data: bytes) -> bytes:
            check = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + check

        header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)

        assert load_image(tmp_path / "a.png", (8, 8))[4, 4].tolist() == [255, 128, 0]

    def test_32_bit_whole_numbers(self, tmp_path: Path) -> None:
        values = np.full((8, 8), 257 * 99, np.int32)
        Image.fromarray(values, "I" if values.dtype == np.int32 else None).save(tmp_path / "a.tif")

        assert load_image(tmp_path / "a.tif", (8, 8))[0, 0].tolist() == [99] * 3

    @pytest.mark.parametrize("scale", [1.0, 255.0])
    def test_float_tiff(self, tmp_path: Path, scale: float) -> None:
        values = np.array([[0, 0.2], [np.nan, 1]], np.float32) * np.float32(scale)
        Image.fromarray(values).save(tmp_path / "a.tif")

        pixels = load_image(tmp_path / "a.tif", (2, 2))

        assert pixels[..., 0].tolist() == [[0, 51], [0, 255]]

    def test_grey_with_alpha(self, tmp_path: Path) -> None:
        pixels = np.zeros((8, 8, 2), np.uint8)
        pixels[:4] = (200, 255)
        pixels[4:] = (200, 64)
        Image.fromarray(pixels, "LA").save(tmp_path / "a.png")

        found = load_image(tmp_path / "a.png", (8, 8))

        assert found[0, 0].tolist() == [200] * 3
        np.testing.assert_allclose(found[7, 7], 50, atol=1)

    @pytest.mark.parametrize("mode", ["1", "L"])
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_one_bit_and_grey(self, tmp_path: Path, mode: str, suffix: str) -> None:
        pixels = np.zeros((8, 8), np.uint8)
        pixels[:, 4:] = 255
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"a.{suffix}")

        found = load_image(tmp_path / f"a.{suffix}", (8, 8))

        np.testing.assert_array_equal(found, np.repeat(pixels[..., None], 3, axis=2))

    def test_an_animated_gif_shows_its_first_picture(self, tmp_path: Path) -> None:
        blank = Image.new("RGB", SIZE, (1, 2, 3))
        quarters().save(tmp_path / "a.gif", save_all=True, append_images=[blank, blank])

        assert_upright(load_image(tmp_path / "a.gif", SIZE), 3)

    @pytest.mark.parametrize("suffix", ["webp", "bmp", "tga", "ppm", "jp2", "avif"])
    def test_other_formats(self, tmp_path: Path, suffix: str) -> None:
        try:
            quarters().save(tmp_path / f"a.{suffix}")
        except (KeyError, OSError):
            pytest.skip(f"this Pillow writes no {suffix}")

        assert_upright(load_image(tmp_path / f"a.{suffix}", SIZE), 14)


class TestProfile:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
    def test_colours_are_converted_to_srgb(self, tmp_path: Path, suffix: str) -> None:
        quarters().save(tmp_path / f"a.{suffix}", icc_profile=swapped_profile(), quality=95)

        first, second, *_ = centres(load_image(tmp_path / f"a.{suffix}", SIZE))

        np.testing.assert_allclose(first, CORNERS["green"], atol=24)
        np.testing.assert_allclose(second, CORNERS["red"], atol=24)

    def test_with_transparency(self, tmp_path: Path) -> None:
        image = quarters()
        image.putalpha(255)
        image.save(tmp_path / "a.png", icc_profile=swapped_profile())

        first, *_ = centres(load_image(tmp_path / "a.png", SIZE))

        np.testing.assert_allclose(first, CORNERS["green"], atol=24)

    @pytest.mark.parametrize("profile", [b"nonsense", swapped_profile()[:200]], ids=["no", "torn"])
    def test_a_damaged_profile_is_none(self, tmp_path: Path, profile: bytes) -> None:
        quarters().save(tmp_path / "a.png", icc_profile=profile)

        assert_upright(load_image(tmp_path / "a.png", SIZE))

    def test_an_rgb_profile_in_a_grey_picture_is_none(self, tmp_path: Path) -> None:
        quarters().convert("L").save(tmp_path / "a.png", icc_profile=swapped_profile())

        assert load_image(tmp_path / "a.png", SIZE)[-1, -1].tolist() == [90] * 3


class TestRefused:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp"])
    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
    def test_truncated(self, tmp_path: Path, suffix: str, share: float) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

        with pytest.raises(ImageError, match=r"it is (damaged|no picture of a known format)"):
            load_image(path, (16, 16))

    @pytest.mark.parametrize("suffix", ["png", "jpg", "tga", "ppm"])
    def test_text_renamed(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        path.write_text("Dear diary, this is no picture. " * 50)

        with pytest.raises(ImageError, match=r"it is (damaged|no picture of a known format)"):
            load_image(path, (16, 16))

    def test_eps_is_never_handed_to_ghostscript(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text(
            "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        )

        with pytest.raises(ImageError, match="no picture of a known format"):
            load_image(path, (16, 16))

    @pytest.mark.parametrize(
        ("suffix", "content"),
        [
            ("png", png_of(60_000, 60_000)),
            ("png", png_of(2**31 - 1, 2**31 - 1)),
            ("gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
             + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x01\x00\x00;"),
            ("ppm", b"P6 60000 60000 255\n" + b"\0" * 100),
            ("bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 60000, 60000, 1, 24,
                                        0, 0, 0, 0, 0, 0)),
            ("tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 60000, 60000, 24, 0)),
        ],
        ids=["png", "larger png", "gif", "ppm", "bmp", "tga"],
    )  # fmt: skip
    def test_a_pixel_bomb_is_refused_by_its_header(
        self, tmp_path: Path, suffix: str, content: bytes
    ) -> None:
        path = tmp_path / f"bomb.{suffix}"
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ImageError, match="pixels"):
                load_image(path, (16, 16))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20_000_000

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="damaged"):
            load_image(tmp_path, (16, 16))

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "tga"])
    def test_damage_anywhere_is_an_image_error_or_a_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        """Whatever bytes say, one bad file must never end the training of thousands."""
        monkeypatch.setattr(images, "MAX_PIXELS", 1 << 20)  # damage may claim millions of pixels
        random = np.random.default_rng(1)
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a description"
        extra = {} if suffix in ("gif", "bmp", "tga") else {"exif": exif}
        if suffix in ("png", "jpg", "tif", "webp"):
            extra["icc_profile"] = swapped_profile()
        buffer = io.BytesIO()
        quarters().save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **extra)
        content = np.frombuffer(buffer.getvalue(), np.uint8)
        path = tmp_path / f"a.{suffix}"
        for _ in range(150):
            damaged = content.copy()
            where = random.integers(0, len(damaged), random.integers(1, 12))
            if random.random() < 0.5:
                where = where % min(200, len(damaged))
            damaged[where] = random.integers(0, 256, len(where))
            path.write_bytes(damaged.tobytes())
            try:
                with quiet_reading():
                    pixels = load_image(path, (16, 16))
            except ImageError:
                continue
            assert pixels.shape == (16, 16, 3)


class TestFit:
    @pytest.mark.parametrize("size", [(32, 32), (64, 16), (31, 7), (1, 1), (100, 300)], ids=str)
    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_size_is_exact(self, tmp_path: Path, size: tuple[int, int], fit: str) -> None:
        quarters().save(tmp_path / "a.png")

        assert load_image(tmp_path / "a.png", size, fit).shape == (size[1], size[0], 3)

    @pytest.fixture
    def banner(self, tmp_path: Path) -> Path:
        """Three squares side by side: red, white, blue."""
        pixels = np.zeros((60, 180, 3), np.uint8)
        pixels[:, :60, 0], pixels[:, 60:120], pixels[:, 120:, 2] = 255, 255, 255
        Image.fromarray(pixels).save(tmp_path / "a.png")
        return tmp_path / "a.png"

    def test_crop_keeps_the_middle(self, banner: Path) -> None:
        pixels = load_image(banner, (30, 30), "crop")

        assert (pixels[:, 3:-3] > 250).all()

    def test_pad_shows_all_on_black(self, banner: Path) -> None:
        pixels = load_image(banner, (30, 30), "pad")

        assert not pixels[:9].any()
        assert not pixels[-9:].any()
        np.testing.assert_allclose(pixels[15, [3, 15, 26]], [[255, 0, 0], [255] * 3, [0, 0, 255]],
                                   atol=3)  # fmt: skip

    def test_stretch_changes_proportions(self, banner: Path) -> None:
        pixels = load_image(banner, (30, 30), "stretch")

        for row in (0, 15, 29):
            np.testing.assert_allclose(
                pixels[row, [3, 15, 26]], [[255, 0, 0], [255] * 3, [0, 0, 255]], atol=3
            )

    def test_a_picture_of_the_right_size_is_untouched(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.png")

        np.testing.assert_array_equal(load_image(tmp_path / "a.png", SIZE), noise)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("a.png", True),
        ("Ä b'c.JPEG", True),
        ("s3://bucket/x/y.webp", True),
        (".hidden.png", False),
        ("._a.jpg", False),
        ("a.txt", False),
        ("png", False),
        ("a.png.part", False),
        ("a.eps", False),
        ("a.svg", False),
    ],
)
def test_names(name: str, known: bool) -> None:
    assert is_image_name(name) is known


class TestHostilePictures:
    def test_bands_of_rows_make_the_same_picture(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        grey = np.linspace(0, 65535, 48 * 32).astype(np.uint16).reshape(32, 48)
        pictures = {
            "rgba.png": Image.fromarray(rng.integers(0, 256, (32, 48, 4), np.uint8)),
            "deep.png": Image.fromarray(grey),
            "float.tif": Image.fromarray((grey / 65535).astype(np.float32)),
            "palette.png": quarters().quantize(4),
        }
        for name, picture in pictures.items():
            picture.save(tmp_path / name, **({"transparency": 1} if name[0] == "p" else {}))
        whole = {name: load_image(tmp_path / name, SIZE) for name in pictures}
        monkeypatch.setattr("asha_ray.vae.images.BAND_PIXELS", 5 * 48)

        for name, pixels in whole.items():
            np.testing.assert_array_equal(load_image(tmp_path / name, SIZE), pixels, name)

    @pytest.mark.parametrize(("bit_depth", "colour"), [(8, 6), (16, 0)], ids=["rgba", "deep grey"])
    def test_a_small_file_of_many_pixels_takes_little_beside_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bit_depth: int, colour: int
    ) -> None:
        """A hundred kilobytes took 25 bytes a pixel, in each of four readers.

        A quarter of so many pixels in bands of a quarter shows it as well.
        """
        monkeypatch.setattr(images, "BAND_PIXELS", images.BAND_PIXELS // 4)
        (tmp_path / "a.png").write_bytes(blank_png(2000, 2000, bit_depth, colour))
        before = peak_bytes()

        load_image(tmp_path / "a.png", SIZE)

        assert peak_bytes() - before < 12 * 2000 * 2000

    def test_damage_that_pillow_has_no_word_for_is_damage(self, tmp_path: Path) -> None:
        """One picture, and the training of thousands would end with a traceback."""
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[ICC_PROFILE] = TiffTags.SHORT
        tags[ICC_PROFILE] = 7
        quarters().save(tmp_path / "a.tif", tiffinfo=tags)

        with pytest.raises(ImageError, match="it is damaged"):
            load_image(tmp_path / "a.tif", SIZE)

    def test_a_program_in_disguise_is_no_picture(self, tmp_path: Path) -> None:
        """Pillow would hand it to ghostscript."""
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")

        with pytest.raises(ImageError, match="no picture of a known format"):
            load_image(tmp_path / "a.png", SIZE)
