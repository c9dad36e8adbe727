"""Procedural training images: neon, satin-like folded ribbons that glow on pure black.

Every image is one closed ribbon in 3-D. Its centre line is a wavy ring, and the direction across
the ribbon turns as it travels round that ring, so the band folds over itself. Two coloured lights
from opposite sides, a satin sheen, bright rims and a soft glow give it its look.

The whole family has only seven continuous parameters (`Ribbon`), each of which moves the picture
smoothly, so that a small model can learn it from a few hundred images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

SUPERSAMPLING = 1.5
FRAME_FILL = 0.87
NUM_SHADE_NODES = 28
DEPTH_SHARPNESS = 18.0
# Directions towards the start light, the end light and the gloss, of length 1.
LIGHTS = np.array([[-0.78, -0.60, 0.17], [0.84, 0.52, 0.13], [-0.28, -0.50, 0.82]], np.float32)

# Oklab, in which mixtures look even. The path skips yellow and green, which would break the
# neon mood.
PALETTE = np.array(
    [
        [0.80, -0.136, -0.063],  # cyan
        [0.64, -0.066, -0.204],  # azure
        [0.56, 0.097, -0.268],  # violet
        [0.64, 0.249, -0.168],  # magenta
        [0.66, 0.265, -0.000],  # pink
        [0.72, 0.123, 0.158],  # orange
    ]
)
# Oklab to the cube roots of cone responses `[3, 3]`, and those responses to linear sRGB.
LAB_TO_CONES = np.array([[1, 0.3963, 0.2158], [1, -0.1056, -0.0639], [1, -0.0895, -1.2915]])
CONES_TO_RGB = np.array(
    [[4.0767, -3.3077, 0.2310], [-1.2684, 2.6098, -0.3413], [-0.0042, -0.7034, 1.7076]]
)
# Bounds of phase, fold, twist, spin and tilt in radians.
# A tour goes round a closed curve this often, in between the images of the rounds before.
TOUR_ROUNDS = 8
# How often each parameter swings in one round, where it begins, and how far it goes.
TOUR_TURNS = np.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0])
TOUR_OFFSETS = np.array([0.0, 0.2, 0.0, 0.3, 0.6, 0.9, 0.1])
TOUR_REACH = np.array([0.48, 0.48, 0.0, 0.3, 0.3, 0.35, 0.35])
SHAPE_BOUNDS = np.array([[0, 2 * np.pi], [0.5, 1.05], [-0.6, 0.6], [-0.45, 0.45], [0.35, 0.85]])


@dataclass(frozen=True)
class Ribbon:
    """The seven parameters of one image.

    `palette_start` and `palette_end` are positions on the palette in 0..1; `phase_rad` is where
    the folds sit on the ring, `fold_rad` is how far the band swings in each fold, `twist_rad` is
    its turn about the ring, and `spin_rad` and `tilt_rad` are the camera's view.
    """

    palette_start: float
    palette_end: float
    phase_rad: float
    fold_rad: float
    twist_rad: float
    spin_rad: float
    tilt_rad: float


def draw_ribbon(size: tuple[int, int], seed: int) -> ByteArray:
    """Draw one image.

    Args:
        size: Width and height in pixels, each at least 16.
        seed: Picks the ribbon; the same seed and size give the same image.

    Returns:
        `[height, width, 3]` uint8 sRGB.
    """
    return render_ribbon(_ribbon_at(np.random.default_rng(seed).random(7)), size)


def draw_gallery(num_images: int, size: tuple[int, int], seed: int = 0) -> Iterator[ByteArray]:
    """Draw a family of images that lie on one closed, smooth curve through the parameters.

    Neighbours are alike, as in a hand-picked sequence, so that a path from one to the next shows
    a form that moves and not two that are blended. The curve is gone round eight times, each time
    in between the images of the times before: no image comes twice.

    Args:
        num_images: How many images to yield; some hundreds make neighbours a small step apart.
        size: Width and height in pixels, each at least 16.
        seed: Begins the tour elsewhere; the same seed gives the same images.

    Yields:
        `[height, width, 3]` uint8 sRGB.
    """
    offset = np.random.default_rng(seed).random()
    for index in range(num_images):
        finished_rounds, place = divmod(TOUR_ROUNDS * index, num_images)
        position = (place + finished_rounds) / num_images + offset
        yield render_ribbon(_ribbon_at(_tour_at(position % 1.0)), size)


def _tour_at(position: float) -> DoubleArray:
    """The point `[7]` of the unit cube at `position` in 0..1 of a closed curve through it."""
    turns = TOUR_TURNS * position + TOUR_OFFSETS
    waves: DoubleArray = 0.5 + TOUR_REACH * np.sin(2 * np.pi * turns)
    # The phase of the folds is an angle itself: it turns on and on.
    waves[2] = turns[2] % 1.0
    return waves


def render_ribbon(ribbon: Ribbon, size: tuple[int, int]) -> ByteArray:
    """Render a ribbon at `size` (width, height) to `[height, width, 3]` uint8 sRGB."""
    positions, lights = _build_surface(ribbon, min(size) * SUPERSAMPLING)
    return _develop(_splat(positions, lights, size), ribbon, min(size))


def _ribbon_at(unit: DoubleArray) -> Ribbon:
    """Map a point `[7]` of the unit cube to a ribbon."""
    distance = 0.30 + 0.34 * unit[1]
    start = (1.0 - distance) * unit[0]
    shape = SHAPE_BOUNDS[:, 0] + unit[2:] * (SHAPE_BOUNDS[:, 1] - SHAPE_BOUNDS[:, 0])
    return Ribbon(float(start), float(start + distance), *shape.tolist())


def _palette_colour(position: float) -> FloatArray:
    """Linear RGB `[3]`, at least 0, at a palette position in 0..1, mixed in Oklab."""
    knots = np.linspace(0.0, 1.0, len(PALETTE))
    lab = np.array([np.interp(position, knots, axis) for axis in PALETTE.T])
    rgb = CONES_TO_RGB @ (LAB_TO_CONES @ lab) ** 3
    return np.asarray(np.maximum(rgb, 0.0), dtype=np.float32)


def _surface_at(ribbon: Ribbon, along: DoubleArray) -> DoubleArray:
    """The surface at ring angles `[n]` in radians, seen from the camera.

    Returns:
        `[3, n, 3]`: xyz coefficients of 1, v and v^2, where v in -1..1 runs across the ribbon,
        x points right, y down and z towards the viewer.
    """
    phase = ribbon.phase_rad
    outward = np.stack([np.cos(along), np.sin(along), 0.0 * along], axis=-1)
    upward = np.array([0.0, 0.0, 1.0])
    # The half turns per lap make a one-sided band: `across` and `curl` both change sign over
    # a lap, which turns v into -v and leaves no seam.
    swing = ribbon.twist_rad + 0.5 * along + ribbon.fold_rad * np.sin(3.0 * along + phase)
    lift = 0.30 * np.sin(2.0 * along - phase)
    curl = 0.28 * np.cos(1.5 * along + phase)
    across = np.cos(swing)[:, None] * outward + np.sin(swing)[:, None] * upward
    normal = np.cos(swing)[:, None] * upward - np.sin(swing)[:, None] * outward
    centre = 0.5 * outward + lift[:, None] * upward
    surface = np.stack([centre, 0.45 * across, curl[:, None] * normal])

    cosine, sine = np.cos(ribbon.tilt_rad), np.sin(ribbon.tilt_rad)
    tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    cosine, sine = np.cos(ribbon.spin_rad), np.sin(ribbon.spin_rad)
    spin = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return np.asarray(surface @ (spin @ tilt).T)


def _build_surface(ribbon: Ribbon, pixels_per_frame: float) -> tuple[FloatArray, FloatArray]:
    """Sample the ribbon densely enough to leave no holes between samples.

    Returns:
        Positions `[3, n, m]` in frame units (the shorter side spans -1..1) and the amounts of
        the start light, the end light and white `[3, n, m]`, each about 0..1.
    """
    coarse_along, coarse_across = np.linspace(0.0, 2.0 * np.pi, 385), np.linspace(-1.0, 1.0, 17)
    powers = coarse_across ** np.arange(3)[:, None]
    rough = np.tensordot(powers, _surface_at(ribbon, coarse_along), (0, 0))
    low, high = rough[..., :2].min(axis=(0, 1)), rough[..., :2].max(axis=(0, 1))
    middle = np.append((low + high) / 2.0, 0.0)
    scale = FRAME_FILL / np.linalg.norm((rough - middle)[..., :2], axis=-1).max()

    # A little of the depth counts as length, so that steep parts are not starved.
    lengths = rough * (scale * pixels_per_frame / 2.0 * np.array([1.0, 1.0, 0.3]))
    steps_along = np.linalg.norm(np.diff(lengths, axis=1), axis=-1).max(axis=0)
    steps_across = np.linalg.norm(np.diff(lengths, axis=0), axis=-1).max(axis=1)
    along = _equal_steps(coarse_along, steps_along)[:-1]
    fine = _equal_steps(coarse_across, steps_across)
    surface = _surface_at(ribbon, along) * scale
    surface[0] -= middle * scale
    slope = _surface_at(ribbon, along + 1e-3) - _surface_at(ribbon, along - 1e-3)
    slope *= scale / 2e-3
    positions = np.einsum("pnk,pm->knm", surface, fine ** np.arange(3)[:, None], optimize=True)
    pair = np.stack([surface, slope]).astype(np.float32)
    lights = _shade(pair[0], pair[1], ribbon.phase_rad, along, fine)
    return positions.astype(np.float32), lights


def _equal_steps(knots: DoubleArray, steps: DoubleArray) -> DoubleArray:
    """Resample `knots` `[n]` to steps of one, where `steps` `[n - 1]` are their own lengths."""
    length = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(np.linspace(0.0, length[-1], int(length[-1]) + 2), length, knots)


def _shade(
    surface: FloatArray, slope: FloatArray, phase_rad: float, along: DoubleArray, fine: DoubleArray
) -> FloatArray:
    """Light the surface `[3, n, 3]`, whose derivative round the ring is `slope` `[3, n, 3]`.

    Shading varies slowly across the ribbon, so it is worked out at a few nodes and
    interpolated to the positions `fine` `[m]`; the thin neon hem is added after that.

    Returns:
        Amounts of the start light, the end light and white, `[3, n, m]`.
    """
    nodes = np.linspace(-1.0, 1.0, NUM_SHADE_NODES, dtype=np.float32)
    powers = nodes ** np.arange(3, dtype=np.float32)[:, None]
    rates = np.stack([0.0 * nodes, 1.0 + 0.0 * nodes, 2.0 * nodes])
    depth = np.tensordot(surface[..., 2], powers, (0, 0))
    tangent = np.tensordot(slope, powers, (0, 0)).transpose(1, 0, 2)
    bitangent = np.tensordot(surface, rates, (0, 0)).transpose(1, 0, 2)
    normal = np.cross(tangent, bitangent, axis=0)
    normal *= np.sign(normal[2]) / np.sqrt((normal**2).sum(axis=0) + 1e-6)
    tangent /= np.sqrt((tangent**2).sum(axis=0) + 1e-6)

    start, end, gloss = np.tensordot(LIGHTS, normal, 1).clip(0.0)
    streak = 1.0 - np.tensordot(LIGHTS[2], tangent, 1) ** 2
    rim = (1.0 - normal[2]) ** 3
    blend = (0.5 + 0.5 * np.sin(along + phase_rad)).astype(np.float32)[:, None]
    near = np.clip(0.60 + 0.75 * depth, 0.10, 1.15)
    white = 0.50 * gloss**48 + 0.22 * gloss**6 * streak**24 + 0.10 * rim
    first = 0.02 + 1.1 * start**1.8 + 0.55 * rim * blend
    second = 0.02 + 1.1 * end**1.8 + 0.55 * rim * (1.0 - blend)
    hat = np.maximum(0.0, 1.0 - np.abs(fine - nodes[:, None]) / (nodes[1] - nodes[0]))
    lights = (near * np.stack([first, second, white])) @ hat.astype(np.float32)
    hem = np.exp((np.abs(fine) - 1.0) / 0.03).astype(np.float32)
    hem_near = 0.9 * (0.35 + 0.6 * near.mean(axis=1, keepdims=True))
    lights[0] += hem_near * blend * hem
    lights[1] += hem_near * (1.0 - blend) * hem
    return np.asarray(lights, dtype=np.float32)


def _splat(positions: FloatArray, lights: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Project the samples `[3, n, m]` to an antialiased image `[3, height, width]` of lights.

    The nearest layer wins by a weight that grows exponentially with z, which needs no sort and
    lets a little of the layers behind shine through, as silk does.
    """
    width, height = size
    num_columns, num_rows = int(width * SUPERSAMPLING), int(height * SUPERSAMPLING)
    scale = np.float32(min(num_columns, num_rows) / 2.0)
    columns = (positions[0] * scale + np.float32(num_columns / 2.0)).astype(np.int32)
    rows = (positions[1] * scale + np.float32(num_rows / 2.0)).astype(np.int32)
    cells = (rows * np.int32(num_columns) + columns).ravel().astype(np.intp)
    weight = np.exp(np.float32(DEPTH_SHARPNESS) * positions[2])

    def gather(values: FloatArray) -> FloatArray:
        total = np.bincount(cells, values.ravel(), num_rows * num_columns)
        return _smooth(total.reshape(num_rows, num_columns).astype(np.float32))

    total_weight = gather(weight) + np.float32(1e-12)
    hit = np.zeros((num_rows, num_columns), dtype=np.float32)
    hit.flat[cells] = 1.0
    # The gain closes pinholes between samples; the offset keeps the outline from growing.
    coverage = np.clip(1.6 * _smooth(hit) - 0.15, 0.0, 1.0) / total_weight
    layers = np.stack([gather(weight * light) * coverage for light in lights])
    layers = _gaussian(height, num_rows, 0.45) @ layers
    return np.asarray(layers @ _gaussian(width, num_columns, 0.45).T)


def _smooth(image: FloatArray) -> FloatArray:
    """Blur `[h, w]` with the 3x3 binomial kernel; the outermost pixels become 0."""
    smooth = np.zeros_like(image)
    pairs = image[1:] + image[:-1]
    pairs = pairs[:, 1:] + pairs[:, :-1]
    pairs = pairs[1:] + pairs[:-1]
    smooth[1:-1, 1:-1] = (pairs[:, 1:] + pairs[:, :-1]) * np.float32(1.0 / 16.0)
    return smooth


@lru_cache(maxsize=32)
def _gaussian(num_out: int, num_in: int, sigma: float) -> FloatArray:
    """A matrix `[num_out, num_in]` that resamples and blurs; `sigma` is in output pixels."""
    centres = (np.arange(num_in) + 0.5) * (num_out / num_in) - 0.5
    matrix = np.exp(-0.5 * ((np.arange(num_out)[:, None] - centres) / sigma) ** 2)
    return np.asarray(matrix * (num_out / num_in / sigma / np.sqrt(2.0 * np.pi)), dtype=np.float32)


def _develop(layers: FloatArray, ribbon: Ribbon, side: int) -> ByteArray:
    """Turn lights `[3, h, w]`, whose shorter side is `side`, to sRGB `[h, w, 3]` with a glow."""
    glow = 0.15 * _blur(layers, 0.03 * side) + 0.12 * _blur(layers, 0.10 * side)
    start, end = _palette_colour(ribbon.palette_start), _palette_colour(ribbon.palette_end)
    middle = _palette_colour((ribbon.palette_start + ribbon.palette_end) / 2.0)
    colours = 1.9 * np.stack([start, end, 0.45 + 0.55 * middle])
    linear = np.tensordot(colours, layers + glow, (0, 0))
    # Compressing the brightest channel alone keeps the hue, compressing each by itself burns
    # to white; half of each gives highlights that glow and still have a colour.
    peak = linear.max(axis=0) + np.float32(1e-6)
    mapped = 0.5 * (1.0 - np.exp(-linear)) + linear * (0.5 * (1.0 - np.exp(-peak)) / peak)
    # A small black point lets the glow end in true black well inside the frame.
    mapped = np.clip((mapped - 0.006) / 0.994, 0.0, 1.0)
    curve = 1.055 * mapped ** np.float32(1.0 / 2.4) - 0.055
    encoded = np.where(mapped <= 0.0031308, 12.92 * mapped, curve)
    # Contiguous, as image and video writers expect.
    return np.ascontiguousarray(np.rint(255.0 * encoded).astype(np.uint8).transpose(1, 2, 0))


def _blur(layers: FloatArray, sigma: float) -> FloatArray:
    """Blur `[3, h, w]` with a Gaussian of `sigma` pixels, by way of a much smaller image."""
    blurred = layers
    for _ in range(2):
        num_pixels = blurred.shape[1]
        num_small = int(np.ceil(2.0 * num_pixels / sigma))
        # 0.8 and 0.6 of sigma add up to sigma, since the variances of Gaussians add.
        down = _gaussian(num_small, num_pixels, 0.8 * sigma * num_small / num_pixels)
        up = _gaussian(num_pixels, num_small, 0.6 * sigma)
        blurred = (up @ (down @ blurred)).transpose(0, 2, 1)
    return blurred
