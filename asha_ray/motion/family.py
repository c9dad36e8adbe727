"""The family of a show: its own few of the model's keyframes, in an order that each episode varies.

Pictures that lie near one another in latent space are alike, so that whoever knows a show knows its
videos, while no two of them are the same. All is drawn by sha256 and summed in one order, and so
is the same on every machine.
"""

import hashlib
import unicodedata
from datetime import date
from math import factorial, gcd

import numpy as np

from asha_ray.values import FloatArray, IndexArray, words_in

PART = 4
"""A family is one keyframe of so many."""
MIN_FAMILY, MAX_FAMILY = 8, 512
SHUFFLED_PART, MIN_SHUFFLED = 4, 6
"""An episode has a stretch of the road to itself: one keyframe of so many, or at least so many."""
GOLDEN = 0.381966
STRIDE = 1_000_003
"""Prime: rounds take each order of a stretch once before any comes again."""


def family(keyframes: FloatArray, show: str, episode: str | None) -> FloatArray:
    """A show's keyframes `[m, L]`, in the order in which one of its episodes visits them.

    The show draws one of them and takes those nearest to it: a quarter of all, 8 to 512, or all
    where there are no more. The tour visits them in file order. Each episode begins at another
    keyframe of the tour, far from where the one before it began, and takes a stretch of it in an
    order of its own.

    Args:
        keyframes: `[n, L]` the model's.
        show: its name; letters' case, spaces and punctuation make no difference.
        episode: `2023-05-01`, where the next day begins some 0.4 of the tour further on and no
            day's road is another's for 720 rounds of the tour; or any other text, which draws its
            road; or None for the tour itself.
    """
    if len(keyframes) < 2:
        return keyframes
    name = _name(show)
    tour = _tour(keyframes, _draw("anchor", name) % len(keyframes))
    return keyframes[tour if episode is None else _road(tour, name, episode)]


def show_seed(show: str) -> int:
    """The seed of a show, 0 <= seed < 2**31; case, spaces and punctuation make no difference."""
    return _draw("seed", _name(show)) % 2**31


def _name(show: str) -> str:
    text = unicodedata.normalize("NFKC", show).casefold()
    return "-".join(words_in(text)) or text


def _draw(*parts: str) -> int:
    text = "\0".join(parts)
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest())


def _tour(keyframes: FloatArray, anchor: int) -> IndexArray:
    """Indices `[m]` of the anchor and its nearest, in file order from the anchor on, wrapping."""
    size = min(len(keyframes), max(MIN_FAMILY, min(MAX_FAMILY, len(keyframes) // PART)))
    distances = _distances(keyframes[anchor : anchor + 1], keyframes)[0]
    distances[anchor] = -1  # before any that equals it
    # The artist's own order, as in any render: from each to its nearest, pictures hardly move.
    kin = np.sort(np.argsort(distances, kind="stable")[:size])
    return np.roll(kin, -int(np.flatnonzero(kin == anchor)[0]))


def _distances(points: FloatArray, others: FloatArray) -> np.ndarray:
    """Squared distances `[p, q]` of latents `[p, L]` and `[q, L]`."""
    # Dimension by dimension: NumPy's own sums are in an order that differs from CPU to CPU.
    total = np.zeros((len(points), len(others)))
    for here, there in zip(points.T.astype(np.float64), others.T.astype(np.float64), strict=True):
        total += np.subtract.outer(here, there) ** 2
    return total


def _road(tour: IndexArray, name: str, episode: str) -> IndexArray:
    """A tour `[m]` as an episode goes: a stretch of it in another order, from another start."""
    size = len(tour)
    num_rounds, day = divmod(_number(name, episode), size)
    start = day * _stride(size) % size
    length = min(size - 1, max(MIN_SHUFFLED, size // SHUFFLED_PART))
    first = _draw("stretch", name) % (size - length + 1)
    # Episodes with one start take the orders of the stretch by turns, from one that is drawn.
    turn = (_draw("order", name, str(start)) + num_rounds * STRIDE) % factorial(length)
    stretch = _permuted(tour[first : first + length].tolist(), turn)
    road = np.concatenate([tour[:first], stretch, tour[first + length :]])
    begin = int(np.flatnonzero(road == tour[start])[0])
    return np.roll(road, -begin)


def _stride(size: int) -> int:
    """How far the next day begins: by the golden section, days lie as evenly as they can.

    It has no factor in common with the size, so that a round of days begins everywhere once.
    """
    wanted = GOLDEN * size
    return min(
        (step for step in range(1, size + 1) if gcd(step, size) == 1),
        key=lambda step: abs(step - wanted),
    )


def _number(name: str, episode: str) -> int:
    try:
        return date.fromisoformat(episode).toordinal()
    except ValueError:
        return _draw("episode", name, episode)


def _permuted(items: list[int], rank: int) -> list[int]:
    """The order with this number of all orders, by its digits in the factorial number system."""
    rest, order = list(items), []
    while rest:
        rank, place = divmod(rank, len(rest))
        order.append(rest.pop(place))
    return order
