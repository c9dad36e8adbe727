"""The family of a show: kin, never the same, and the same on every machine."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from asha_ray.motion.family import family, show_seed

SIZES = [(1, 1), (2, 2), (5, 5), (8, 8), (9, 8), (64, 16), (100, 25), (200, 50), (2500, 512)]


def keyframes_of(num: int, latent_dim: int = 6) -> np.ndarray:
    return np.random.default_rng(num).normal(size=(num, latent_dim)).astype(np.float32)


def indices(keyframes: np.ndarray, members: np.ndarray) -> list[int]:
    """Which of the keyframes these are; all of them differ."""
    where = {row.tobytes(): index for index, row in enumerate(keyframes)}
    return [where[row.tobytes()] for row in members]


def edges(road: list[int]) -> set[tuple[int, int]]:
    return set(pairwise([*road, road[0]]))


def day(number: int) -> str:
    return (date(2023, 5, 1) + timedelta(days=number)).isoformat()


@pytest.mark.parametrize("episode", [None, "2023-05-01", "Pilot"])
@pytest.mark.parametrize(("num", "expected"), SIZES, ids=str)
def test_a_family_is_a_quarter_of_all(num, expected, episode):
    keyframes = keyframes_of(num)

    found = family(keyframes, "Night Shift", episode)

    assert found.dtype == np.float32
    assert len(set(indices(keyframes, found))) == len(found) == expected


def test_a_family_is_its_anchor_and_those_nearest_to_it():
    """Of clusters far apart, a show keeps to one: its pictures are alike."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 100
    keyframes = np.concatenate([c + rng.normal(size=(30, 5)) for c in centres]).astype(np.float32)
    rng.shuffle(keyframes)
    seen = set()
    for number in range(30):
        found = family(keyframes, f"Show {number}", "2023-05-01")
        clusters = {int(np.argmin(np.linalg.norm(centres - row, axis=1))) for row in found}
        assert len(clusters) == 1
        seen |= clusters
    assert len(seen) > 2, "shows differ from one another"


def test_the_tour_is_in_file_order():
    """Nearest to nearest a picture hardly moves; an artist's own order is that of any render."""
    keyframes = keyframes_of(300)

    tour = indices(keyframes, family(keyframes, "Night Shift", None))

    begin = tour.index(min(tour))
    assert [*tour[begin:], *tour[:begin]] == sorted(tour)


@pytest.mark.parametrize("num", [3, 64, 100, 600])
def test_a_round_of_episodes_begins_everywhere_and_neighbours_far_apart(num):
    """Daily shows that begin alike would look like one another."""
    keyframes = keyframes_of(num)
    tour = indices(keyframes, family(keyframes, "Night Shift", None))
    size = len(tour)
    starts = [
        tour.index(indices(keyframes, family(keyframes, "Night Shift", day(n)))[0])
        for n in range(2 * size)
    ]

    assert sorted(starts[:size]) == list(range(size))
    assert starts[:size] == starts[size:], "a whole round apart they begin alike"
    for days in (1, 2, 7) if size > 20 else ():
        apart = [(two - one) % size for one, two in zip(starts, starts[days:], strict=False)]
        nearest = min(min(step, size - step) for step in apart)
        assert nearest >= size // 20, f"{days} days apart"


@pytest.mark.parametrize("num", [200, 600])
def test_neighbouring_episodes_share_most_of_their_road(num):
    keyframes = keyframes_of(num)
    roads = [indices(keyframes, family(keyframes, "Night Shift", day(n))) for n in range(40)]

    for one, two in pairwise(roads):
        assert set(one) == set(two)
        shared = len(edges(one) & edges(two)) / len(one)
        assert 0.7 < shared < 1


@pytest.mark.parametrize("num", [64, 600])
def test_no_two_episodes_are_ever_the_same(num):
    """Fifteen years of a daily show, which come round many times."""
    keyframes = np.arange(num, dtype=np.float32)[:, None]
    size = len(family(keyframes, "Night Shift", None))
    roads = {
        family(keyframes, "Night Shift", day(start + size * rounds)).tobytes()
        for start in (0, 3)
        for rounds in range(720)
    }

    assert len(roads) == 2 * 720


def test_episodes_of_other_names_are_kin_and_not_the_same():
    keyframes = keyframes_of(200)
    roads = [
        tuple(indices(keyframes, family(keyframes, "Night Shift", f"Episode {n}")))
        for n in range(50)
    ]

    assert len(set(roads)) == 50
    assert len({frozenset(road) for road in roads}) == 1
    assert len({road[0] for road in roads}) > 20


@pytest.mark.parametrize(
    "same", ["night shift", "NIGHT  SHIFT", "Night-Shift!", "Ｎｉｇｈｔ Shift"]
)
def test_a_shows_name_may_be_written_otherwise(same):
    keyframes = keyframes_of(100)

    assert show_seed(same) == show_seed("Night Shift")
    np.testing.assert_array_equal(
        family(keyframes, same, "2023-05-01"), family(keyframes, "Night Shift", "2023-05-01")
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [("दिल", "दाल"), ("கல்", "கால்"), ("Ночь", "Ночи"), ("C", "C2")],
    ids=["hindi", "tamil", "russian", "latin"],
)
def test_other_words_are_other_shows(one, two):
    """Vowel signs are marks to Unicode, and all there is between two words."""
    assert show_seed(one) != show_seed(two)
    assert show_seed(one) == show_seed(f" {one}! ❤\ufe0f")


def test_a_seed_is_one_that_every_part_takes():
    seeds = [show_seed(name) for name in ("", "!", "?", "a", "夜", "\ud800", *map(str, range(99)))]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_what_is_drawn_is_known():
    """Another draw would make every show of every archive anew."""
    keyframes = np.arange(100, dtype=np.float32)[:, None] ** 2

    assert show_seed("Night Shift") == 2008998319
    roads = {
        None: [*range(72, 84), *range(59, 72)],
        "2023-05-01": [66, 70, 67, 69, 65, 71, *range(72, 84), *range(59, 65), 68],
        "Pilot": [*range(74, 84), *range(59, 65), 67, 70, 69, 66, 68, 65, 71, 72, 73],
    }
    for episode, road in roads.items():
        assert np.sqrt(family(keyframes, "Night Shift", episode))[:, 0].tolist() == road


def test_duplicated_keyframes_are_visited_as_any_others():
    keyframes = np.repeat(keyframes_of(3), 10, axis=0)

    for episode in (None, "2023-05-01", "Pilot"):
        found = family(keyframes, "Night Shift", episode)
        assert found.shape == (8, 6)
        assert len(np.unique(found, axis=0)) == 1


@pytest.mark.parametrize("num", [0, 1])
def test_none_and_one_are_returned_as_they_are(num):
    keyframes = keyframes_of(num)

    for episode in (None, "2023-05-01", "Pilot"):
        np.testing.assert_array_equal(family(keyframes, "Night Shift", episode), keyframes)
