"""Where something new begins: sections of the music, and the tracks of a mix.

Shapes: s seconds, d dimensions of what a second sounds like, c candidate boundaries.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d

from asha_ray.audio.grid import GRID_FPS
from asha_ray.audio.merge import Curves
from asha_ray.values import TimeArray

Array = NDArray[np.float64]

NUM_TIMBRE = 12
SECTION_KERNEL_S = 12
SECTION_GAP_S = 8
CANDIDATE_KERNEL_S = 8
CANDIDATE_GAP_S = 4
SHORTEST_TRACK_S, CUT_TRACK_S, LONGEST_TRACK_S = 35, 10, 1200
SPREAD_FLOOR = 0.1
"""Added to each variance, in units of the whole mix's: a drone is not infinitely itself."""

HIGHEST_PRICE, LOWEST_PRICE = 2.5, 1.0
"""What another track must gain, in log likelihood per free parameter of its Gaussian. Chosen, as
the next ones, on mixes of half of a set of game music; on mixes of the other half F was 0.8 at 5 s.
"""
LONG_TRACK_S = 180
"""Where tracks are as long, the price is highest. What speaks for a boundary grows with the length
of what it divides, and so do the differences within a track: among short tracks, less must do."""
MAX_ROUNDS = 6
CHUNK_S = 512
PAUSE_DISCOUNT = 0.6
"""How much cheaper it is where the level drops by 40 dB: tracks fade, stop and begin."""
PAUSE_DB = 40.0


def find_sections(curves: Curves) -> TimeArray:
    """Boundaries within the music by self-similarity (Foote 2000).

    Novelty is a checkerboard kernel of 12 s each way, with a Gaussian taper, slid along the
    diagonal of the similarity of all seconds; as that kernel is a product, it is the squared
    distance of the tapered means before and after, and the matrix is never built.

    Returns:
        `[a]` seconds, ascending, at least 8 apart and from the ends.
    """
    sound = _sound_of_seconds(curves)
    if len(sound) < 2 * SECTION_KERNEL_S:
        return np.zeros(0)
    from scipy.signal import find_peaks  # takes most of a second to import

    novelty = _novelty(sound, SECTION_KERNEL_S)
    height = float(novelty.mean() + 0.5 * novelty.std())
    peaks, _ = find_peaks(novelty, height=max(height, 0.5), distance=SECTION_GAP_S)
    inside = (peaks >= SECTION_GAP_S) & (peaks <= len(sound) - SECTION_GAP_S)
    return np.asarray(peaks[inside], np.float64)


def find_tracks(curves: Curves) -> TimeArray:
    """Boundaries between the tracks of a mix: the likeliest division into stretches of one sound.

    A stretch is modelled by a Gaussian with full covariance over what its seconds sound like; the
    division is the best of all by dynamic programming over candidates, with a price for each
    stretch (the Bayesian information criterion, Chen and Gopalakrishnan 1998).

    Returns:
        `[b]` seconds, ascending; empty for a single track.
    """
    from scipy.signal import find_peaks

    sound = _sound_of_seconds(curves)
    candidates, _ = find_peaks(_novelty(sound, CANDIDATE_KERNEL_S), distance=CANDIDATE_GAP_S)
    edges = np.concatenate([[0], candidates, [len(sound)]])
    stretches = _stretches(sound, edges)
    num_dimensions = sound.shape[1]
    discount = 1 - PAUSE_DISCOUNT * _pauses(curves, edges)
    price, cuts = HIGHEST_PRICE, np.zeros(0)
    for _ in range(MAX_ROUNDS):
        prices = price * discount * num_dimensions * (num_dimensions + 1) / 2
        cuts = _best_division(stretches, edges, prices)
        mean_length_s = len(sound) / (len(cuts) + 1)
        next_price = HIGHEST_PRICE * min(1.0, mean_length_s / LONG_TRACK_S)
        next_price = max(LOWEST_PRICE, next_price)
        if next_price >= price or not len(cuts):
            break
        price = next_price
    return cuts


Stretches = list[tuple[NDArray[np.integer], Array]]
"""For each edge, the earlier edges from which a track may reach to it, and what each costs."""


def _stretches(sound: Array, edges: NDArray[np.integer]) -> Stretches:
    """How badly one Gaussian fits each stretch: the negative log likelihood of its seconds."""
    sums = np.concatenate([np.zeros_like(sound[:1]), np.cumsum(sound, axis=0)])
    squares = _square_sums(sound, edges)
    floor = SPREAD_FLOOR * np.eye(sound.shape[1])
    result: Stretches = []
    for number, stop in enumerate(edges):
        length = (stop - edges[:number]).astype(np.float64)
        # A track may be cut short by the end of the mix.
        shortest = SHORTEST_TRACK_S if number < len(edges) - 1 else CUT_TRACK_S
        starts = np.flatnonzero((length >= shortest) & (length <= LONGEST_TRACK_S))
        length, first = length[starts], edges[starts]
        mean = (sums[stop] - sums[first]) / length[:, None]
        square = (squares[number] - squares[starts]) / length[:, None, None]
        covariance = square - mean[:, :, None] * mean[:, None, :] + floor
        result.append((starts, length / 2 * np.linalg.slogdet(covariance)[1]))
    return result


def _square_sums(sound: Array, edges: NDArray[np.integer]) -> Array:
    """The products of all dimensions `[c, d, d]`, summed over the seconds before each edge."""
    sums = np.zeros((len(edges), sound.shape[1], sound.shape[1]))
    total = np.zeros(sums.shape[1:])
    # Of every second they would be 5 kB.
    for start in range(0, len(sound), CHUNK_S):
        part = sound[start : start + CHUNK_S]
        products = part[:, :, None] * part[:, None, :]
        products[0] += total
        np.cumsum(products, axis=0, out=products)
        total = products[-1].copy()
        inside = (edges > start) & (edges <= start + len(part))
        sums[inside] = products[edges[inside] - start - 1]
    return sums


def _best_division(stretches: Stretches, edges: NDArray[np.integer], prices: Array) -> TimeArray:
    """The inner edges at which the cheapest division of the whole cuts; none if there is none."""
    total = np.full(len(edges), np.inf)
    total[0] = 0
    came_from = np.zeros(len(edges), np.int64)
    for stop, (starts, costs) in enumerate(stretches):
        if len(starts):
            sums = total[starts] + costs + prices[stop]
            came_from[stop] = starts[int(sums.argmin())]
            total[stop] = sums.min()
    cuts = []
    edge = int(came_from[-1]) if np.isfinite(total[-1]) else 0
    while edge > 0:
        cuts.append(float(edges[edge]))
        edge = int(came_from[edge])
    return np.array(cuts[::-1])


def _sound_of_seconds(curves: Curves) -> Array:
    """Timbre and pitch classes of each second `[s, 24]`, each of unit spread over the whole."""
    starts = np.arange(0, len(curves.rms), GRID_FPS)
    chroma = np.add.reduceat(curves.chroma, starts, axis=0) / GRID_FPS
    sound = np.column_stack([curves.timbre[:, :NUM_TIMBRE], chroma]).astype(np.float64)
    centred = sound - sound.mean(axis=0)
    return np.asarray(np.clip(centred / np.maximum(centred.std(axis=0), 1e-6), -4, 4))


def _novelty(sound: Array, kernel_s: int) -> Array:
    """Squared distance `[s]` of the tapered means of the seconds before and from each second on."""
    taper = np.exp(-0.5 * (np.arange(1, kernel_s + 1) / (kernel_s / 2)) ** 2)
    padded = np.pad(sound, ((kernel_s, kernel_s), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_s, axis=0)
    after = windows[kernel_s : kernel_s + len(sound)] @ (taper / taper.sum())
    before = windows[: len(sound)] @ (taper[::-1] / taper.sum())
    # Per dimension, so that a threshold means the same for any number of them.
    return np.asarray(np.square(after - before).mean(axis=1))


def _pauses(curves: Curves, edges: NDArray[np.integer]) -> Array:
    """How far the level drops within two seconds of each edge `[c]`: 1 for 40 dB or more."""
    starts = np.arange(0, len(curves.rms), GRID_FPS)
    lowest = np.minimum.reduceat(uniform_filter1d(curves.rms, GRID_FPS // 4), starts)
    lowest_db = 20 * np.log10(np.maximum(lowest, 1e-4))
    drop = np.clip((median_filter(lowest_db, 61) - lowest_db) / PAUSE_DB, 0, 1)
    near = [drop[max(0, edge - 3) : edge + 3].max(initial=0) for edge in edges]
    return np.array(near)
