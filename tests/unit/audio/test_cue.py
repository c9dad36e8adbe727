"""Cue sheets, as burning programs and radio stations write them."""

import pytest

from asha_ray.audio.cue import MAX_CUE_BYTES, read_cue
from asha_ray.values import Chapter, Tags

SHEET = """REM GENRE Electronica
REM DATE 2023-05-01
PERFORMER "Åsa"
TITLE "The Night Shift"
FILE "night.wav" WAVE
  TRACK 01 AUDIO
    TITLE "Opening"
    PERFORMER "ÅSA"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Winter – Live"
    PERFORMER "Björk"
    INDEX 00 03:58:00
    INDEX 01 04:02:37
  TRACK 03 AUDIO
    PERFORMER Nobody at all
    INDEX 01 100:00:74
  TRACK 04 AUDIO
    INDEX 01 101:00:00
"""

KNOWN = Tags(
    title="The Night Shift",
    artist="Åsa",
    date="2023-05-01",
    chapters=(
        Chapter(0.0, "Opening"),
        Chapter(242 + 37 / 75, "Björk – Winter – Live"),
        Chapter(6000 + 74 / 75, "Nobody at all"),
        Chapter(6060.0, "Chapter 4"),
    ),
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_a_sheet_says_titles_and_times(encoding, end):
    assert read_cue(SHEET.replace("\n", end).encode(encoding)) == KNOWN


def test_a_sheet_of_a_machine_with_its_bytes_the_other_way_round_is_read():
    assert read_cue(b"\xfe\xff" + SHEET.encode("utf-16-be")) == KNOWN


def test_commands_are_read_in_whatever_case_and_without_indent():
    lines = "\n".join(line.strip().lower() for line in SHEET.splitlines())

    found = read_cue(lines.encode())

    assert (found.title, found.date) == ("the night shift", "2023-05-01")
    assert [c.start_s for c in found.chapters] == [c.start_s for c in KNOWN.chapters]


def test_of_several_files_the_first_ones_tracks_are_read():
    """Times begin anew in each file: those of the second would be wrong in the first."""
    second = 'FILE "b.wav" WAVE\n TRACK 05 AUDIO\n  TITLE "Other"\n  INDEX 01 00:10:00\n'
    early = '  TRACK 05 AUDIO\n    TITLE "Begins next"\n    INDEX 00 110:00:00\n'

    assert read_cue((SHEET + second).encode()) == KNOWN
    assert read_cue((SHEET + early + second).encode()) == KNOWN


def test_texts_are_cleaned():
    sheet = SHEET.replace("Opening", "Op\x1ben\x00ing" + "x" * 600)

    assert read_cue(sheet.encode()).chapters[0].title == "Opening" + "x" * 493


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff" * 500,
        b"\xff\xfe\x00",
        b"\xff\xfe\x00\xd8" * 99,
        b"\x81\x8d\x8f TRACK",
        b"Title of this note\nTrack it down\nIndex of all things",
        b'TITLE "No tracks"\nFILE "a.wav" WAVE\n',
        b"TRACK 01 AUDIO\nINDEX 01 0:61:00\n",
        b"TRACK 01 AUDIO\nINDEX 01 00:00:75\n",
        b"TRACK 01 AUDIO\nINDEX 01 00:00:00:00\n",
        b"INDEX 01 00:00:00\n",
        ("TRACK 01 AUDIO\nINDEX 01 ٠٠:٠٠:٠٠\n").encode(),
        b" " * 2 * MAX_CUE_BYTES + b"TRACK 01 AUDIO\nINDEX 01 00:00:00\n",
    ],
    ids=lambda content: ascii(content[:30]),
)
def test_nonsense_gives_nothing(content):
    assert read_cue(content) == Tags()
