"""A takedown: a show and all that was made of it goes, and no later run makes it again."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asha_ray.errors import AshaError, JobError, ManifestError, NotFoundError, StorageError
from asha_ray.farm.archive.catalogue import CATALOGUE
from asha_ray.farm.archive.naming import fold
from asha_ray.farm.archive.others import keys_in_hand, living_runs
from asha_ray.farm.archive.report import REPORT
from asha_ray.farm.archive.scan import show_id_of
from asha_ray.farm.archive.silence import silence
from asha_ray.farm.archive.telling import tell
from asha_ray.farm.archive.traces import Traces, traces_of
from asha_ray.farm.places import absolute
from asha_ray.progress import NullProgress, Progress
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_below, is_s3
from asha_ray.storage.journal import is_alive, now, read_heartbeat
from asha_ray.storage.ledger import Ledger, Records, ShowRecord, thumbnail_uri
from asha_ray.storage.work import WorkRoot

NEAR = 3
"""Shows that an error names."""
KEPT_FOLDERS = (".asha", ".ledger")
"""Folders of an archive's output in which no show's files lie."""


@dataclass(frozen=True)
class Forgotten:
    """What a takedown has removed.

    Attributes:
        show_id: the show's.
        removed: what went: `outputs`, `thumbnail`, `segments`, `features`, `stems` and `renders`,
            and where each of these files was.
        rewritten: files that say nothing of it any more: of runs, the catalogue, the report.
        num_bytes: of what was removed.
        kept: what of it other shows or renders need, a sentence each.
        dry_run: whether nothing was touched, and this is what would be.
    """

    show_id: str
    removed: Mapping[str, tuple[str, ...]]
    rewritten: tuple[str, ...]
    num_bytes: int
    kept: tuple[str, ...]
    dry_run: bool


def forget(
    ledger: Ledger,
    output: str,
    show: str,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Forgotten:
    """Remove a show and all that was made of it, for good.

    First its record says that it is forgotten, so that no run makes it again from now on, and
    holds what leads to the rest until that is gone: a takedown that was interrupted is finished by
    the same command. What is left of the show is its id, with the word that it is forgotten.
    Its sound file, and what was written of it in sidecars beside that, is not this archive's.

    Args:
        ledger: of the archive.
        output: of the archive, a folder or prefix.
        show: its id, its sound file's path below the source, its video's below the output, or a
            part of one of these that no other show has; the whole path where it never ended.
        dry_run: touch nothing.
        progress: hears of each stage.

    Raises:
        NotFoundError: if there is no such show.
        JobError: if there are several, or a run is at it.
        StorageError: if something cannot be read or deleted.
    """
    progress = progress or NullProgress()
    progress.stage("reading the ledger", unit="records")
    records = ledger.read_all(on_look=progress.advance)
    progress.stage("looking at names", unit="names")
    claims = ledger.claims(on_look=progress.advance)
    record = _meant(ledger, records, claims, show)
    live = living_runs(ledger.runs())
    _require_not_in_hand(record, live)
    record = _latest(ledger, record)
    takedown = _Takedown(ledger, output, record, records, progress, dry_run)
    takedown.look(claims)
    takedown.begin()
    takedown.remove_outputs()
    takedown.remove_traces()
    takedown.silence(live)
    takedown.conclude()
    return takedown.told()


def _meant(ledger: Ledger, records: Records, claims: Mapping[str, str], show: str) -> ShowRecord:
    """The show that is meant, as `find_show` finds it, or one that has no record yet."""
    show_id = show_id_of(show)
    if show_id in records:
        return replace(records[show_id], key=show)
    # Before its path is taken for a part of another's.
    if show not in records and (
        show_id in records.damaged or show_id in claims.values() or _is_there(ledger, show)
    ):
        return ShowRecord(show_id, "failed", key=show)
    return find_show(records, show)


def _is_there(ledger: Ledger, key: str) -> bool:
    """Whether a show's sound file is there; one that cannot be reached counts as gone."""
    with suppress(AshaError):
        return is_below(key) and any(storage_of(uri).size(uri) for uri in _sounds(ledger, key))
    return False


def _sounds(ledger: Ledger, key: str) -> list[str]:
    """Where a show's sound file is, as runs and plans have named the source."""
    notes = (ledger.read_plan() or {}, ledger.read_spec() or {})
    sources = dict.fromkeys(str(note["source"]) for note in notes if note.get("source"))
    return [f"{absolute(source).rstrip('/')}/{key}" for source in sources if key]


def _latest(ledger: Ledger, record: ShowRecord) -> ShowRecord:
    """A record as it is now: a run may have ended the show since all were read."""
    with suppress(NotFoundError, ManifestError):
        latest = ledger.read(record.show_id)
        return replace(latest, key=latest.key or record.key)
    return record


def find_show(records: Mapping[str, ShowRecord], show: str) -> ShowRecord:
    """The show that is meant.

    Args:
        records: of all shows by their ids.
        show: an id, a path of a sound file or of a video, or a part of one of these.

    Raises:
        NotFoundError: if there is none.
        JobError: if there are several.
    """
    # What was forgotten has lost its path, and is found by it all the same.
    for show_id in (show, show_id_of(show)):
        if show_id in records:
            return records[show_id]
    exact, near = [], []
    for record in records.values():
        names = (record.key, record.output)
        if show in names:
            exact.append(record)
        elif show and any(show in name for name in (record.show_id, *names)):
            near.append(record)
    meant = exact or near
    if not meant:
        raise NotFoundError(
            f"show {show[:200]!r}: the archive has none of that id, path or output; "
            "`asha-ray archive status` and the catalogue name its shows"
        )
    if len(meant) > 1:
        some = ", ".join(repr(record.key) for record in meant[:NEAR])
        more = " …" if len(meant) > NEAR else ""
        raise JobError(f"show {show[:200]!r}: {len(meant)} have that ({some}{more}); give more")
    return meant[0]


def _require_not_in_hand(record: ShowRecord, live: Iterable[Mapping[str, Any]]) -> None:
    """Make sure that no run works on a show.

    Raises:
        JobError: if one does.
    """
    for beat in live:
        if record.key in keys_in_hand(beat):
            raise JobError(
                f"forgetting {record.key!r}: a run on {beat.get('host')} (started "
                f"{beat.get('started')}) is at it; wait until it has ended, or stop it, and run "
                "this again"
            )


def _require_idle(key: str, work: str, render_ids: Iterable[str]) -> None:
    """Make sure that nobody works on a show's renders.

    Raises:
        JobError: if somebody does.
    """
    for render_id in render_ids:
        beat = read_heartbeat(WorkRoot(work).render_uri(render_id)) or {}
        if is_alive(beat):
            raise JobError(
                f"forgetting {key!r}: somebody renders it on {beat.get('host')}; wait until "
                "that has ended, and run this again"
            )


@dataclass
class _Takedown:
    """One takedown, as far as it is."""

    ledger: Ledger
    output: str
    record: ShowRecord
    records: Records
    progress: Progress
    dry_run: bool
    claims: list[str] = field(default_factory=list)
    traces: list[Traces] = field(default_factory=list)
    removed: dict[str, list[str]] = field(default_factory=dict)
    rewritten: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    num_bytes: int = 0

    def others(self) -> Iterator[ShowRecord]:
        """The other shows. A ledger decodes each as it is asked for, so none is held."""
        for record in self.records.values():
            if record.show_id != self.record.show_id and record.state != "forgotten":
                yield record

    def look(self, claims: Mapping[str, str]) -> None:
        """Find all that there is of it, before anything is touched.

        Raises:
            JobError: if somebody renders it.
        """
        record = self.record
        self.claims = [uri for uri, show_id in claims.items() if show_id == record.show_id]
        sounds = _sounds(self.ledger, record.key)
        for work in self._works():
            of_work = replace(record, work=work)
            if work != record.work:
                of_work = replace(of_work, render_id="")
            traces = traces_of(of_work, self.output, sounds, self.others(), self.progress)
            _require_idle(record.key, work, {*traces.renders, of_work.render_id} - {""})
            self.traces.append(traces)
        videos = [video for traces in self.traces for video in traces.videos if not _is_kept(video)]
        videos = [video for video in (record.output, *videos) if video]
        beside = [name for video in videos if self._has_name(video) for name in _beside(video)]
        self.record = replace(
            record,
            output=record.output or next(iter(videos), ""),
            files=tuple(dict.fromkeys((*beside, *record.files))),
        )
        for name in self.record.files:
            self._uri_of(name)

    def _works(self) -> Iterable[str]:
        """Work roots that something of it may be in: its own, and the one of the latest run."""
        run = (self.ledger.read_spec() or {}).get("run") or {}
        latest = str(run.get("work") or join(self.output, ".asha"))
        return dict.fromkeys(work for work in (self.record.work, latest) if work)

    def _has_name(self, video: str) -> bool:
        """Whether a video's name is not another show's by now."""
        holder = self.ledger.name_holder(fold(video.removesuffix(".mp4")))
        return holder in (None, self.record.show_id)

    def begin(self) -> None:
        """Say that it is forgotten, and keep what leads to the rest of it."""
        if self.dry_run:
            return
        record = self.record
        self.ledger.write(
            ShowRecord(
                record.show_id,
                "forgotten",
                key=record.key,
                time=now(),
                title=record.title,
                output=record.output,
                files=record.files,
                work=record.work,
                render_id=record.render_id,
                digests=record.digests,
            )
        )

    def remove_outputs(self) -> None:
        """Delete the video, and all that was written beside it."""
        uris = {name: self._uri_of(name) for name in self.record.files}
        theirs = {
            name: other.key for other in self.others() for name in other.files if name in uris
        }
        self.kept += [f"{name}: it is of {key} too" for name, key in theirs.items()]
        self._remove("outputs", [uri for name, uri in uris.items() if name not in theirs])
        self._drop_empty_folders(uris)
        self._remove("thumbnail", [thumbnail_uri(self.output, self.record.show_id)])

    def remove_traces(self) -> None:
        """Delete what it has left in work roots."""
        for traces in self.traces:
            self.kept += traces.kept
            for kind, entries in traces.entries.items():
                if entries:
                    self.removed.setdefault(kind, []).extend(entry.uri for entry in entries)
                    self.num_bytes += sum(entry.num_bytes for entry in entries)
            if not self.dry_run:
                traces.delete()

    def silence(self, live: Iterable[Mapping[str, Any]]) -> None:
        """Let no run's files name it."""
        self.progress.stage("looking at runs")
        runs = {str(beat.get("run", "")) for beat in live}
        self.rewritten += silence(self.ledger.folder, self.record, runs, dry_run=self.dry_run)

    def conclude(self) -> None:
        """Let others have its names, and let record, catalogue, report and index not name it."""
        told = [join(self.output, name) for name in (CATALOGUE, REPORT)]
        self.rewritten += [uri for uri in told if storage_of(uri).size(uri) is not None]
        if self.dry_run:
            return
        self.progress.stage("telling")
        for claim in self.claims:
            storage_of(claim).delete(claim)
        self.ledger.write(ShowRecord(self.record.show_id, "forgotten", time=now()))
        tell(self.ledger, self.output, self.records)

    def told(self) -> Forgotten:
        """What was done."""
        removed = {kind: tuple(uris) for kind, uris in self.removed.items()}
        return Forgotten(
            self.record.show_id,
            removed,
            tuple(self.rewritten),
            self.num_bytes,
            tuple(self.kept),
            self.dry_run,
        )

    def _uri_of(self, name: str) -> str:
        if _is_kept(name):
            raise StorageError(
                f"forgetting {self.record.key!r}: its record says that {name!r} was made for it, "
                "which is no show's; the record is damaged, check or delete it"
            )
        return join(self.output, name)

    def _remove(self, kind: str, uris: Iterable[str]) -> None:
        storage = storage_of(self.output)
        for uri in uris:
            size = storage.size(uri)
            if size is None:
                continue
            self.removed.setdefault(kind, []).append(uri)
            self.num_bytes += size
            if not self.dry_run:
                storage.delete(uri)

    def _drop_empty_folders(self, names: Iterable[str]) -> None:
        """Folders that it alone was in, which may be named after it."""
        if is_s3(self.output) or self.dry_run:
            return
        for name in names:
            folder = Path(self.output, name).parent
            with suppress(OSError):  # others are in it
                while folder != Path(self.output):
                    folder.rmdir()
                    folder = folder.parent


def _is_kept(name: str) -> bool:
    return name.partition("/")[0].casefold() in KEPT_FOLDERS


def _beside(video: str) -> tuple[str, ...]:
    """What is written for a video; its record vouches for it, so that goes first."""
    stem = video.removesuffix(".mp4")
    return f"{video}.json", video, f"{stem}.jpg", f"{stem}.strip.jpg"
