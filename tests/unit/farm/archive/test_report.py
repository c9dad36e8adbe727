"""The report page: whole by itself, safe whatever a file is called, and honest about the rest."""

import base64
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from asha_ray.farm.archive import report as module
from asha_ray.farm.archive.report import pictured, report_page, write_report
from asha_ray.farm.archive.status import status_of
from asha_ray.storage.ledger import Ledger, ShowRecord, thumbnail_uri
from tests.unit.farm.archive.fake_ledger import a_show, ago

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 100
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: balanced tags, their attributes and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [str(given[name]) for found, given in self.tags if found == tag and name in given]


def page_of(
    records: list[ShowRecord],
    thumbnail: bytes | None = JPEG,
    plan: dict[str, Any] | None = None,
    beats: tuple[dict[str, Any], ...] = (),
) -> Page:
    now = datetime(2026, 1, 3, tzinfo=UTC)
    status = status_of("s3://bucket/station", records, beats, plan, now)
    return Page(report_page(status, records, lambda _: thumbnail))


def test_a_page_needs_nothing_beside_it() -> None:
    """It is mailed, and opened from a disk: a font or script from elsewhere would fail or spy."""
    page = page_of([a_show("a.mp3"), a_show("b.mp3", "parked")])
    assert page.attributes("meta", "content")[0] == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.attributes("img", "src") == [
        f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    ]
    status = status_of("out", [], [], None, datetime(2026, 1, 3, tzinfo=UTC))
    source = report_page(status, [], lambda _: None)
    assert "url(" not in source
    assert "@import" not in source
    assert "prefers-color-scheme: dark" in source


def test_the_head_says_how_far_it_is() -> None:
    plan = {"todo": 3, "todo_bytes": 3 * 360_000, "time": "2030-01-01T00:00:00+00:00"}
    beat = {"state": "running", "started": ago(3601), "time": ago(1), "sound_s": 7200}
    beat |= {"bytes_left": 3 * 360_000, "cost": 12.5, "currency": "EUR", "gpu_s": 36_000}
    page = page_of([a_show("a.mp3")], plan=plan, beats=(beat,))
    assert "1.0hours" in page.text
    assert "of sound are on video, and about 3 wait" in page.text
    for figure in ("1 of 4", "2.0", "1 h 30 min", "10.0", "12.50 EUR", "2026-01-03 00:00 UTC"):
        assert figure in page.text
    assert page.attributes("div", "aria-label") == ["1 on video, 3 waiting"]


HOSTILE = [
    ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ('"><img src=x onerror=alert(1)>', '"><img src=x onerror=alert(1)>'),
    ("' onmouseover='alert(1)", "' onmouseover='alert(1)"),
    ("&lt;b&gt;", "&lt;b&gt;"),
    ("safe\u202egpj.exe", "safe\\u202egpj.exe"),
    ("\u2066a\u2069", "\\u2066a\\u2069"),
    ("red\x1b[31m\x00\n", "red\\x1b[31m\\x00\\n"),
    ("caf\udce9", "caf\\udce9"),
    ("שלום", "שלום"),
]


@pytest.mark.parametrize(("name", "seen"), HOSTILE, ids=[seen for _, seen in HOSTILE])
def test_a_name_is_shown_and_is_nothing_else(name: str, seen: str) -> None:
    """Tags are a stranger's: a page that a station opens must not run them, or be turned around."""
    records = [
        a_show("a.mp3", title=name, show=name, date=name, quality={"problems": [name]}),
        a_show(f"{name}.mp3", "parked", reason=f"{name}; {name}", time=name),
        a_show(f"{name}.wav", "failed", reason=name),
    ]
    page = page_of(records, plan={"refused": [[name, name]]})
    assert page.text.count(seen) >= 11
    assert page.attributes("span", "title") == [seen]
    assert not any(key.startswith("on") for _, given in page.tags for key in given)
    assert page.attributes("img", "src") == [f"data:image/jpeg;base64,{_encoded(JPEG)}"]
    assert seen == name or name not in page.text


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "output",
    ["Night/a b.mp4", "javascript:alert(1).mp4", "100%/#1?x&y.mp4", 'q".mp4', "ä/é.mp4"],
)
def test_links_lead_to_the_videos(output: str) -> None:
    """Relative, so that they hold where the archive is copied to; and never to anything else."""
    page = page_of([a_show("a.mp3", output=output)])
    link = page.attributes("a", "href")[0]
    assert unquote(link) == f"./{output}"
    assert re.fullmatch(r"\./[\w./~%-]+", link, re.ASCII)


@pytest.mark.parametrize("output", ["../../etc/passwd", "/etc/passwd", "a//b.mp4", "a\n.mp4", ""])
def test_a_path_that_leads_out_is_no_link(output: str) -> None:
    page = page_of([a_show("a.mp3", output=output)])
    assert page.attributes("a", "href") == ["catalogue.parquet"]


@pytest.mark.parametrize(
    "thumbnail", [None, b"", b"<svg onload=alert(1)>", JPEG + b"x" * 40_000],
    ids=["none", "empty", "another kind", "too large"],
)  # fmt: skip
def test_what_is_no_small_picture_is_left_out(thumbnail: bytes | None) -> None:
    page = page_of([a_show("a.mp3")], thumbnail)
    assert page.attributes("img", "src") == []
    assert "picture blank" in page.attributes("span", "class")


def test_what_needs_a_person_comes_first_with_its_remedy() -> None:
    """A station looks at the page to know what to do."""
    reason = "reading a.mp3: it is torn; store it anew"
    records = [
        a_show("b.mp3", quality={"problems": ["30 s are black"]}),
        a_show("a.mp3", "parked", reason=reason, attempts=3),
    ]
    text = page_of(records).text
    order = ["Needs a person", "it is torn", "store it anew", "Worth a look", "30 s are black"]
    positions = [text.index(part) for part in [*order, "Shows\n"]]
    assert positions == sorted(positions)
    assert "tried 3 times" in text


def test_a_moment_beyond_all_years_is_shown_as_it_stands() -> None:
    time = "0001-01-01T00:00:00+14:00"
    assert f"last on {time}" in page_of([a_show("a.mp3", "parked", time=time)]).text


def test_shows_are_by_series_the_newest_first() -> None:
    records = [
        a_show("1.mp3", title="one", show="Beta", date="2020-01-01"),
        a_show("2.mp3", title="two", show="alpha", date="2020-01-01"),
        a_show("3.mp3", title="three", show="alpha", date="2021-01-01"),
        a_show("4.mp3", title="four"),
    ]
    page = page_of(records)
    assert page.attributes("span", "title") == ["three", "two", "one", "four"]
    assert re.findall(r"(\w[\w ]*?) (\d)\n", page.text[page.text.index("Shows") :])[:1]
    assert [page.text.count(name) for name in ("Without a series 1", "alpha 2")] == [2, 2]


def test_a_large_archive_has_a_page_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand pictures in a page would open nowhere; what is left out is said."""
    assert (module.MAX_PICTURES, module.MAX_ROWS) == (300, 5000)
    monkeypatch.setattr(module, "MAX_PICTURES", 3)
    monkeypatch.setattr(module, "MAX_ROWS", 4)
    records = [a_show(f"{n:05d}.mp3", date=f"{n:05d}") for n in range(14)]
    assert [record.key for record in pictured(records)] == ["00013.mp3", "00012.mp3", "00011.mp3"]
    page = page_of(records)
    assert len(page.attributes("img", "src")) == 3
    assert sum(tag == "tr" for tag, _ in page.tags) == 1 + 4
    assert "7 more are left out here; catalogue.parquet has them all" in page.text


def test_an_archive_with_nothing_yet_has_a_page() -> None:
    page = page_of([])
    assert "0.0hours" in page.text
    assert page.attributes("div", "aria-label") == ["no shows yet"]


def test_a_report_is_put_into_the_output(tmp_path: Path) -> None:
    """With the pictures that lie in the ledger; a show without one is there all the same."""
    ledger = Ledger(str(tmp_path))
    shows = [a_show("a.mp3"), a_show("b.mp3")]
    for show in shows:
        ledger.write(show)
    path = Path(thumbnail_uri(str(tmp_path), shows[0].show_id))
    path.parent.mkdir(parents=True)
    path.write_bytes(JPEG)
    uri = write_report(ledger, str(tmp_path))
    assert uri == str(tmp_path / "report.html")
    page = Page(Path(uri).read_text())
    assert page.attributes("span", "title") == ["a", "b"]
    assert len(page.attributes("img", "src")) == 1
