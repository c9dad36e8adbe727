"""What is known of a show before its sound is measured: who says it first, in one clean line."""

from pathlib import Path

import pytest

from asha_ray.farm.archive import hear as module
from asha_ray.farm.archive.hear import Heard, Hearing, hear
from asha_ray.progress import NullProgress
from asha_ray.spec import ArchiveSpec, build
from asha_ray.values import Chapter
from tests.media import tone, write_sound

CUE = """REM DATE 1999
PERFORMER "Cue artist"
TITLE "Cue title"
FILE "x.wav" WAVE
  TRACK 01 AUDIO
    TITLE "Opening"
    INDEX 01 00:00:00
"""


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "Jazz").mkdir()
    return write_sound(tmp_path / "Jazz" / "2023-05-01 Live.wav", tone(0.1, 8000), 8000)


def heard(sound: Path, sidecar: str = "", cue: bytes = b"") -> Heard:
    """What is heard of a show that its rule skips, which is all but its sound."""
    files = {"sidecar": sidecar.encode(), "cue": cue}
    uris = {name: str(sound.with_suffix(f".{name}")) if files[name] else "" for name in files}
    for name, uri in uris.items():
        if uri:
            Path(uri).write_bytes(files[name])
    data = {"source": str(sound.parents[1]), "output": "/out", "model": "/m"}
    data |= {"paths": ["{show}/{date} {title}"], "rules": [{"match": {}, "skip": True}]}
    spec = build(ArchiveSpec, data)
    return hear(
        Hearing(spec=spec, key=f"Jazz/{sound.name}", uri=str(sound), work="", **uris),
        NullProgress(),
    )


def test_a_path_speaks_where_nobody_else_does(sound: Path) -> None:
    found = heard(sound)
    assert (found.facts.show, found.tags.title, found.tags.date) == ("Jazz", "Live", "2023-05-01")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_cue_sheet_speaks_before_the_path(sound: Path, encoding: str) -> None:
    tags = heard(sound, cue=CUE.encode(encoding)).tags
    assert (tags.title, tags.artist, tags.date) == ("Cue title", "Cue artist", "1999")
    assert tags.chapters == (Chapter(0.0, "Opening"),)


def test_a_sidecar_speaks_first_and_in_one_line(sound: Path) -> None:
    """A title of two lines, or one that turns a terminal round, would be in every list."""
    sidecar = (
        'show: "Night\\nShift"\n'
        'title: "Live\\tat\\u202e\\u0007 last  "\n'
        "artist: DJ  A\n"
        "date: 1.5.2024\n"
    )
    found = heard(sound, sidecar, CUE.encode())
    assert (found.facts.show, found.tags.title) == ("Night Shift", "Live at last")
    assert (found.tags.artist, found.facts.artist) == ("DJ A", "DJ A")
    assert (found.tags.date, found.tags.album) == ("2024-05-01", "")


def test_what_a_sidecar_leaves_empty_others_say(sound: Path) -> None:
    found = heard(sound, 'show: "\\u0007"\ntitle: "  "\ndate: someday\n')
    assert (found.facts.show, found.tags.title, found.tags.date) == ("Jazz", "Live", "2023-05-01")


def test_a_path_is_read_once(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand paths against a hundred patterns take their time."""
    asked: list[str] = []

    def words(key: str, patterns: object) -> dict[str, str]:
        asked.append(key)
        return {"show": "Said", "title": "by the path"}

    monkeypatch.setattr(module, "words_from_path", words)
    found = heard(sound)
    assert (found.facts.show, found.facts.title) == ("Said", "by the path")
    assert asked == [found.facts.key]
