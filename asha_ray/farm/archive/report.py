"""The report of an archive: one HTML page that needs nothing beside it, and no script.

Names and reasons come from strangers' files: each is escaped, and what would steer a reader's eye
or a terminal is shown as an escape. Pictures are within the page; the page may load nothing.
"""

import base64
import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from typing import Any
from urllib.parse import quote

from asha_ray.errors import NotFoundError
from asha_ray.farm.archive.catalogue import CATALOGUE
from asha_ray.farm.archive.quality import found_in
from asha_ray.farm.archive.status import ArchiveStatus, status_of
from asha_ray.storage import basename, join, storage_of
from asha_ray.storage.base import is_below
from asha_ray.storage.journal import moment
from asha_ray.storage.ledger import Ledger, ShowRecord, thumbnail_uri

REPORT = "report.html"
"""Its name in the archive's output."""
MAX_PICTURES = 300
MAX_ROWS = 5000
MAX_LISTED = 200
"""Shows that are named as parked, failed or remarked on, and files that are no shows."""
MAX_PICTURE_BYTES = 32 << 10
READS_AT_ONCE = 16

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_JPEG = b"\xff\xd8\xff"
_TURNING = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
"""Kinds of characters that turn the text after them around."""


def write_report(ledger: Ledger, output: str) -> str:
    """Put an archive's report into its output; returns where it is.

    Args:
        ledger: of the archive.
        output: of the archive, a folder or prefix.

    Raises:
        StorageError: if something cannot be read or written.
    """
    return publish_report(ledger, ledger.read_all().values(), output)


def publish_report(ledger: Ledger, records: Iterable[ShowRecord], output: str) -> str:
    """The same of records that were read already; each is asked for once."""
    records = [_slim(record) for record in records]
    status = status_of(output, records, ledger.runs(), ledger.read_plan(), datetime.now(UTC))
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="asha-thumb") as threads:
        ids = [record.show_id for record in pictured(records)]
        pictures = dict(
            zip(ids, threads.map(lambda name: _picture(output, name), ids), strict=True)
        )
    page = report_page(status, records, lambda record: pictures.get(record.show_id))
    uri = join(output, REPORT)
    storage_of(uri).write(uri, page.encode())
    return uri


def _slim(record: ShowRecord) -> ShowRecord:
    """A record without what a report does not tell, which is most of it."""
    return replace(record, sections=(), chapters=(), files=(), digests={})


def pictured(records: Iterable[ShowRecord]) -> list[ShowRecord]:
    """The shows that a report has pictures of: the newest whose video is there, newest first."""
    return _newest_first(record for record in records if record.state == "done")[:MAX_PICTURES]


def report_page(
    status: ArchiveStatus,
    records: Iterable[ShowRecord],
    thumbnails: Callable[[ShowRecord], bytes | None],
) -> str:
    """An archive's report as a page of HTML, to lie in the archive's output.

    Args:
        status: how far the archive is.
        records: of its shows.
        thumbnails: a show's picture as the content of a small JPEG; None where there is none. Asked
            for the shows of `pictured` only.
    """
    shows = [record for record in records if record.state == "done"]
    shown = pictured(shows)
    left = {record.show_id for record in shows} - {record.show_id for record in shown}
    earlier = sorted((record for record in shows if record.show_id in left), key=_by_series)
    parts = [
        _head(status),
        _person(status),
        _remarks(shows),
        _later(status),
        _gallery(shown, thumbnails),
        _earlier(earlier),
        f'<footer><span>As of {_time(status.time)}</span><a href="{CATALOGUE}">{CATALOGUE}</a> '
        "<span>has a row for every show</span></footer>",
    ]
    style = files(__package__).joinpath("report.css").read_text()
    title = f"{_name_of(status)}: {status.num_done} of {status.num_shows} shows"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _head(status: ArchiveStatus) -> str:
    counts = [
        ("done", status.num_done, "on video"),
        ("failed", status.num_failed, "to be tried again"),
        ("parked", status.num_parked, "for a person to look at"),
        ("waiting", status.num_waiting, "waiting"),
    ]
    dial = "".join(
        f'<span class="is-{name}" style="flex-grow:{count}"></span>'
        for name, count, _ in counts
        if count
    )
    legend = "".join(
        f'<li class="is-{name}">{count:,} {what}</li>' for name, count, what in counts if count
    )
    said = ", ".join(f"{count:,} {what}" for _, count, what in counts if count) or "no shows yet"
    hours = f"{status.hours_done:,.0f}" if status.hours_done >= 10 else f"{status.hours_done:.1f}"
    return (
        f'<header>\n<h1 dir="auto">{_text(_name_of(status))}</h1>\n'
        f'<p class="where code">{_text(status.output)}</p>\n'
        f'<p class="hero">{hours}<small>hours</small></p>\n<p class="under">{_under(status)}</p>\n'
        f'<div class="dial" role="img" aria-label="{_text(said)}">{dial}</div>\n'
        f'<ul class="legend">{legend}</ul>\n<dl class="figures">{_figures(status)}</dl>\n</header>'
    )


def _under(status: ArchiveStatus) -> str:
    if status.hours_waiting:
        return f"of sound are on video, and about {status.hours_waiting:,.0f} wait"
    if status.num_waiting:
        return "of sound are on video; how many wait shows when the first show is done"
    return "of sound are on video, and nothing waits" if status.num_done else "of sound so far"


def _figures(status: ArchiveStatus) -> str:
    figures = [("Shows on video", f"{status.num_done:,} of {status.num_shows:,}")]
    if status.rate is not None:
        figures.append(("Hours of sound an hour", f"{status.rate:,.1f}"))
    if status.left_s is not None:
        figures.append(("Time left", _span(status.left_s)))
    used = [("GPU hours", status.gpu_hours), ("CPU hours", status.cpu_hours)]
    figures += [(name, f"{hours:,.1f}") for name, hours in used if hours]
    if status.cost is not None:
        figures.append(("Cost so far", _text(f"{status.cost:,.2f} {status.currency}")))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)


def _person(status: ArchiveStatus) -> str:
    if not status.num_parked:
        return ""
    items = [
        _trouble(show.key, show.reason, f"{_times(show.attempts)}, last on {_time(show.time)}")
        for show in status.parked[:MAX_LISTED]
    ]
    return (
        f'<section id="person">\n<h2>{_counted("Needs a person", status.num_parked)}</h2>\n'
        '<p class="soft">These were tried as often as was asked, and are left alone until somebody '
        f"has looked.</p>\n{_list(items, status.num_parked)}\n</section>"
    )


def _remarks(shows: Iterable[ShowRecord]) -> str:
    remarked = [(record, problems) for record in shows if (problems := _problems(record))]
    if not remarked:
        return ""
    remarked.sort(key=lambda pair: _by_series(pair[0]))
    items = [
        f"<li><p>{_link(record, _title(record))}"
        f'<span class="meta">{_text(_series(record))}</span></p>'
        f"<div>{''.join(f'<p>{_text(problem)}</p>' for problem in problems)}</div></li>"
        for record, problems in remarked[:MAX_LISTED]
    ]
    return (
        f'<section id="remarks">\n<h2>{_counted("Worth a look", len(remarked))}</h2>\n'
        '<p class="soft">The videos are there and whole; the check has remarked on them.</p>\n'
        f"{_list(items, len(remarked))}\n</section>"
    )


def _later(status: ArchiveStatus) -> str:
    failed = [
        _trouble(show.key, show.reason, _times(show.attempts))
        for show in status.failed[:MAX_LISTED]
    ]
    refused = [_trouble(name, reason, "") for name, reason in status.refused[:MAX_LISTED]]
    parts = []
    for name, items, count in (
        ("Failed, and tried again by themselves", failed, status.num_failed),
        ("Files that are no shows", refused, len(status.refused)),
    ):
        if items:
            head = f"<summary>{_counted(name, count)}</summary>"
            parts.append(f"<details>{head}{_list(items, count)}</details>")
    return f"<section>\n{''.join(parts)}\n</section>" if parts else ""


def _gallery(shown: Sequence[ShowRecord], thumbnails: Callable[[ShowRecord], bytes | None]) -> str:
    if not shown:
        return ""
    groups = [
        (name, list(group)) for name, group in groupby(sorted(shown, key=_by_series), key=_series)
    ]
    links = "".join(
        f'<li><a href="#series-{number}" dir="auto">{_text(name)}</a>'
        f'<span class="count"> {len(group)}</span></li>'
        for number, (name, group) in enumerate(groups)
    )
    parts = [
        f'<h3 id="series-{number}" dir="auto">{_counted(name, len(group))}</h3>\n'
        f'<ol class="shows">{"".join(_card(record, thumbnails(record)) for record in group)}</ol>'
        for number, (name, group) in enumerate(groups)
    ]
    index = f'<ul class="series">{links}</ul>\n' if len(groups) > 1 else ""
    return f'<section id="shows">\n<h2>Shows</h2>\n{index}{"".join(parts)}\n</section>'


def _card(record: ShowRecord, thumbnail: bytes | None) -> str:
    picture = '<span class="picture blank"></span>'
    if thumbnail and thumbnail.startswith(_JPEG) and len(thumbnail) <= MAX_PICTURE_BYTES:
        data = base64.b64encode(thumbnail).decode()
        picture = f'<span class="picture"><img alt="" src="data:image/jpeg;base64,{data}"></span>'
    facts = [record.date, _clock(record.duration_s)]
    facts += [f"{record.tempo:.0f}\N{NO-BREAK SPACE}BPM"] if record.tempo else []
    meta = _text(" · ".join(fact for fact in facts if fact))
    mark = ' <span class="mark">worth a look</span>' if _problems(record) else ""
    name = _text(_title(record))
    title = f'<span class="title" dir="auto" title="{name}">{name}</span>'
    inner = f'{picture}{title}<span class="meta">{meta}{mark}</span>'
    return f"<li>{_anchored(record, inner)}</li>"


def _earlier(earlier: Sequence[ShowRecord]) -> str:
    if not earlier:
        return ""
    rows = "".join(
        f'<tr><td class="wide">{_link(record, _title(record))}</td>'
        f'<td class="wide later"><bdi>{_text(_series(record))}</bdi></td>'
        f"<td>{_text(record.date)}</td>"
        f'<td class="number">{_clock(record.duration_s)}</td></tr>'
        for record in earlier[:MAX_ROWS]
    )
    more = len(earlier) - MAX_ROWS
    left = (
        f'<p class="soft">{more:,} more are left out here; '
        f'<a href="{CATALOGUE}">{CATALOGUE}</a> has them all.</p>'
        if more > 0
        else ""
    )
    return (
        f'<section id="earlier">\n<h2>{_counted("More shows", len(earlier))}</h2>\n'
        f'<p class="soft">Above are pictures of the {MAX_PICTURES} newest.</p>{left}\n'
        '<div class="table"><table><thead><tr><th>Title</th><th class="later">Series</th>'
        f'<th>Date</th><th class="number">Length</th></tr></thead><tbody>{rows}</tbody></table>'
        "</div>\n</section>"
    )


def _trouble(name: str, reason: str, facts: str) -> str:
    # Errors here end with what to do, after a semicolon.
    why, _, remedy = reason.rpartition("; ") if "; " in reason else (reason, "", "")
    said = f"<p>{_text(why)}</p>" + (f'<p class="remedy">{_text(remedy)}</p>' if remedy else "")
    meta = f'<span class="meta">{facts}</span>' if facts else ""
    return (
        f'<li><p><bdi class="code">{_text(name)}</bdi>{meta}</p><div dir="auto">{said}</div></li>'
    )


def _list(items: Sequence[str], count: int) -> str:
    more = count - len(items)
    left = (
        f'<li class="soft">and {more:,} more; the catalogue has them all</li>' if more > 0 else ""
    )
    return f'<ol class="troubles">{"".join(items)}{left}</ol>'


def _link(record: ShowRecord, name: str) -> str:
    return _anchored(record, f"<bdi>{_text(name)}</bdi>")


def _anchored(record: ShowRecord, inner: str) -> str:
    """A link to a show's video, if its path is one that a page may lead to."""
    if not record.output or not is_below(record.output):
        return f"<span>{inner}</span>"
    path = quote(record.output.encode(errors="surrogateescape"))
    return f'<a href="./{path}">{inner}</a>'


def _counted(name: str, count: int) -> str:
    return f'{_text(name)}<span class="count"> {count:,}</span>'


def _problems(record: ShowRecord) -> tuple[str, ...]:
    return found_in(record.quality).problems


def _title(record: ShowRecord) -> str:
    return record.title or basename(record.key)


def _series(record: ShowRecord) -> str:
    return record.show or "Without a series"


def _by_series(record: ShowRecord) -> tuple[Any, ...]:
    """By series, those without one last, then the newest first."""
    newest = tuple(-ord(character) for character in record.date)
    return (not record.show, record.show.casefold(), record.show, newest, record.key)


def _newest_first(records: Iterable[ShowRecord]) -> list[ShowRecord]:
    return sorted(records, key=lambda record: (record.date, record.time, record.key), reverse=True)


def _name_of(status: ArchiveStatus) -> str:
    return basename(status.output) or status.output


def _times(attempts: int) -> str:
    return "tried once" if attempts == 1 else f"tried {attempts} times"


def _time(text: str) -> str:
    """A moment as people write it; as it stands where it is none."""
    found = moment(text)
    if found is None:
        return _text(text)
    return f'<time datetime="{found:%Y-%m-%dT%H:%M:%SZ}">{found:%Y-%m-%d %H:%M} UTC</time>'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _span(seconds: float) -> str:
    """A stretch of time in its two greatest units."""
    minutes = max(1, round(seconds / 60)) if seconds else 0
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _text(text: str) -> str:
    """A text as a part of a page, whoever wrote it; what nobody would see is shown as an escape."""
    seen = "".join(_visible(character) for character in text)
    return html.escape(seen)


def _visible(character: str) -> str:
    turns = unicodedata.bidirectional(character) in _TURNING
    if turns or unicodedata.category(character) in ("Cc", "Cs"):
        return character.encode("unicode_escape").decode()
    return character


def _picture(output: str, show_id: str) -> bytes | None:
    uri = thumbnail_uri(output, show_id)
    try:
        return storage_of(uri).read(uri)
    except NotFoundError:
        return None
