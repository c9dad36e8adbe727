"""Sheets of pictures."""

import numpy as np
import pytest

from asha_ray.vae.sheets import (
    BACKGROUND,
    contact_sheet,
    progress_strip,
    reconstruction_sheet,
    spread,
)

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)


def plain(count: int, height: int = 20, width: int = 30) -> np.ndarray:
    """Pictures of one colour each."""
    return np.stack([np.full((height, width, 3), COLOURS[i % 3]) for i in range(count)])


def colours_in(sheet: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(sheet.reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_a_contact_sheet_shows_every_picture(count: int) -> None:
    sheet = np.asarray(contact_sheet(plain(count)))

    shown = sum(int((sheet == colour).all(-1).sum()) for colour in COLOURS)
    assert shown == count * 20 * 30
    assert tuple(sheet[0, 0]) == BACKGROUND


def test_a_contact_sheet_keeps_the_order() -> None:
    sheet = np.asarray(contact_sheet(plain(3), columns=3))

    middle = sheet[sheet.shape[0] // 2]
    first_seen = [int(np.argmax((middle == colour).all(-1))) for colour in COLOURS]
    assert first_seen == sorted(first_seen)


def test_reconstructions_stand_below_their_originals() -> None:
    originals, again = plain(1), np.full((1, 20, 30, 3), 128, np.uint8)

    sheet = np.asarray(reconstruction_sheet(originals, again))

    upper = int(np.argmax((sheet == COLOURS[0]).all(-1).any(1)))
    lower = int(np.argmax((sheet == 128).all(-1).any(1)))
    column = int(np.argmax((sheet == 128).all(-1).any(0)))
    assert upper < lower
    assert tuple(sheet[upper, column]) == tuple(COLOURS[0])


def test_a_progress_strip_has_a_row_an_epoch() -> None:
    rows = [(f"epoch {number}", plain(2)) for number in (1, 2, 3)]

    strip = progress_strip(plain(2), rows)

    shorter = progress_strip(plain(2), rows[:2])
    assert strip.width == shorter.width
    assert (strip.height - 6) == (shorter.height - 6) / 3 * 4


def test_large_pictures_are_shrunk_in_proportion() -> None:
    sheet = contact_sheet(plain(1, 512, 1024))

    assert (sheet.width, sheet.height) == (256 + 12, 128 + 12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1)], ids=str)
def test_slender_pictures_are_drawn_too(shape: tuple[int, int]) -> None:
    assert contact_sheet(plain(2, *shape)).width > 0


@pytest.mark.parametrize(
    ("num_items", "count", "expected"),
    [(10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (1, 1, [0]), (5, 1, [0])],
)
def test_spread(num_items: int, count: int, expected: list[int]) -> None:
    assert spread(num_items, count).tolist() == expected
