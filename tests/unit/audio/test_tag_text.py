"""What tags are made of: no text of a stranger's reaches a screen or a record as it is."""

import math

import pytest

from asha_ray.audio.tag_text import MAX_CHAPTERS, in_order, normal_date, one_line
from asha_ray.values import Chapter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Night Shift", "Night Shift"),
        ("  Night\r\n\tShift\x00 ", "Night Shift"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a\u2028b\u3000c\xa0d", "a b c d"),
        ("a\ud800b\udfffc", "abc"),
        ("abc\u202efed\u2066", "abcfed"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("x" * 501, "x" * 500),
        ("x" * 499 + " y", "x" * 499),
        ("e\u0301" * 500, "\u00e9" * 500),
        ("\x00\x01", ""),
        ("", ""),
    ],
    ids=ascii,
)
def test_a_text_is_one_printable_line(text, expected):
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-05-01", "2023-05-01"),
        ("2023-05", "2023-05"),
        ("2023", "2023"),
        ("20230501", "2023-05-01"),
        ("2023/5/1", "2023-05-01"),
        ("2023_05_01", "2023-05-01"),
        ("2023.05.01", "2023-05-01"),
        ("01.05.2023", "2023-05-01"),
        ("1.5.2023", "2023-05-01"),
        ("2023-05-01T20:00:00Z", "2023-05-01"),
        ("2023-05-01T20", "2023-05-01"),
        ("2023-05-01 20:00:00+02:00", "2023-05-01"),
        ("20230501T200000", "2023-05-01"),
        ("May 1, 2023", "2023-05-01"),
        ("may 1st 2023", "2023-05-01"),
        ("1 May 2023", "2023-05-01"),
        ("1. Sept. 2023", "2023-09-01"),
        ("August 2023", "2023-08"),
        ("2024-02-29", "2024-02-29"),
        (" 2023-05-01\n", "2023-05-01"),
    ],
)
def test_a_date_that_can_be_only_one_is_normal(text, expected):
    assert normal_date(text) == expected
    assert normal_date(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "01/05/2023",
        "05-01-2023",
        "1.5.23",
        "230501",
        "202305",
        "2023-02-29",
        "2023-13-01",
        "2023-00-00",
        "2023-05/01",
        "31.04.2023",
        "0000",
        "0001-01-01",
        "9999",
        "2023-05-01-02",
        "the 2023-05-01",
        "٢٠٢٣",
        "1" * 5000,
        "Octember 1, 2023",
    ],
)
def test_what_is_no_date_or_could_be_two_is_none(text):
    """A guessed day would file a show under the wrong one, and nobody would notice."""
    assert normal_date(text) == ""


def test_chapters_are_ascending_named_and_within_reason():
    given = [(9.0, "c"), (math.nan, "x"), (-1.0, "x"), (math.inf, "x"), (0.0, "a\n"), (4.5, "")]

    assert in_order([*given, (9.0, "twice")]) == (
        Chapter(0.0, "a"),
        Chapter(4.5, "Chapter 2"),
        Chapter(9.0, "c"),
    )
    many = in_order((float(5000 - number), "t") for number in range(5000))
    assert [chapter.start_s for chapter in many] == list(range(1, MAX_CHAPTERS + 1))
