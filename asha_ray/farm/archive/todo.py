"""What is to be done: what an archive's source holds, beside what its ledger and output say."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from asha_ray.farm.archive.listing import files_below
from asha_ray.farm.archive.rules import SettingsDigests, check_rules, model_versions
from asha_ray.farm.archive.scan import Scan, Source, own_folders, scan, show_id_of
from asha_ray.farm.places import absolute
from asha_ray.progress import Progress
from asha_ray.spec import ArchiveSpec
from asha_ray.storage.ledger import Ledger, Records, ShowRecord

VIDEO, VIDEO_RECORD = ".mp4", ".mp4.json"
NAMED = 3
"""Damaged records that are named; the rest is counted."""
TELL_EVERY_S = 0.5

Answer = TypeVar("Answer")
Why = Literal["new", "changed", "failed", "gone", "asked"]
Fate = Literal["done", "parked", "skipped", "forgotten"]


@dataclass(frozen=True, slots=True)
class Todo:
    """A show that is to be done.

    Attributes:
        source: its sound file.
        show_id: hash of its key.
        settings: digest of all that its settings may come from.
        why: it is `new`; it or its settings have `changed`; it `failed` and is to be tried again;
            its video is `gone`; somebody has `asked` for it.
        records: of the ledger.
    """

    source: Source
    show_id: str
    settings: str
    why: Why
    records: Mapping[str, ShowRecord] = field(repr=False, compare=False)

    @property
    def before(self) -> ShowRecord | None:
        """How it has ended before, decoded each time; None where it has not."""
        return self.records.get(self.show_id)

    @property
    def attempts(self) -> int:
        """How often it has failed, as it is now."""
        before = self.before if self.why == "failed" else None
        return before.attempts if before else 0

    def after(self, failed: ShowRecord) -> "Todo":
        """The same, to be tried again."""
        return replace(self, why="failed", records={self.show_id: failed})

    def is_settled_by(self, record: ShowRecord) -> bool:
        """Whether a record, which another run has written, leaves nothing to do."""
        same = (record.source, record.settings) == (source_of(self.source), self.settings)
        return record.state == "forgotten" or (same and record.state != "failed")


@dataclass(frozen=True)
class Agenda:
    """What is to be done of an archive, and what is not.

    Attributes:
        todo: in the order in which it is to be done, no more than one run shall do.
        done: how many shows' videos are there, as they should be.
        parked_ids: of shows that are tried again when somebody says so.
        skipped: how many their settings leave out.
        forgotten: how many are never to be done.
        refused: `(name, why)` of what can be no show.
        num_shows: that the source holds.
        num_bytes: of these.
        num_left: of these, those that are to be done by this run or another.
        left_bytes: of these.
        records: of all shows that have ever ended, even if their sound is gone.
    """

    todo: tuple[Todo, ...]
    done: int
    parked_ids: tuple[str, ...]
    skipped: int
    forgotten: int
    refused: list[tuple[str, str]]
    num_shows: int
    num_bytes: int
    num_left: int
    left_bytes: int
    records: Records

    @property
    def parked(self) -> list[ShowRecord]:
        """The records of shows that are tried again when somebody says so, decoded each time."""
        return [self.records[show_id] for show_id in self.parked_ids]


def find_todo(
    spec: ArchiveSpec, ledger: Ledger, progress: Progress, only: Collection[str] = ()
) -> Agenda:
    """Look at source, ledger and output, each by one list, and say what is to be done.

    The three are listed side by side: of a bucket a list takes a second for some thousand files.

    Args:
        spec: the archive.
        ledger: of it.
        progress: hears of files.
        only: ids of shows that somebody asks for, parked or forgotten ones too, and no others; all
            that are to be done where there are none.

    Raises:
        SpecError: if a rule is wrong, or the source is none.
        NotFoundError: if the source does not exist.
        ManifestError: if a newer asha-ray has written a record.
        StorageError: if something cannot be listed.
    """
    check_rules(spec)
    found, records, videos = _look(spec, ledger, progress)
    _tell_damaged(records, progress)
    digests = SettingsDigests(spec, model_versions(spec))
    todo: list[Todo] = []
    num_left = left_bytes = 0
    fates: dict[str, list[str]] = {"done": [], "parked": [], "skipped": [], "forgotten": []}
    for source in found.sources:
        show_id, settings = show_id_of(source.key), digests.of(source)
        verdict = _verdict(records.get(show_id), source, settings, videos)
        if show_id in only and verdict in ("parked", "skipped", "forgotten"):
            verdict = "asked"
        if verdict in fates:
            fates[verdict].append(show_id)
            continue
        num_left, left_bytes = num_left + 1, left_bytes + source.num_bytes
        if not only or show_id in only:
            todo.append(Todo(source, show_id, settings, verdict, records))  # type: ignore[arg-type]
    return Agenda(
        todo=tuple(todo[: spec.limit]),
        done=len(fates["done"]),
        parked_ids=tuple(fates["parked"]),
        skipped=len(fates["skipped"]),
        forgotten=len(fates["forgotten"]),
        refused=found.refused,
        num_shows=len(found.sources),
        num_bytes=sum(source.num_bytes for source in found.sources),
        num_left=num_left,
        left_bytes=left_bytes,
        records=records,
    )


def source_of(source: Source) -> str:
    """A sound file as `ShowRecord.source` tells it."""
    return f"{source.num_bytes}:{source.version}"


def _verdict(
    record: ShowRecord | None, source: Source, settings: str, videos: set[str]
) -> Why | Fate:
    if record is None:
        return "new"
    if record.state == "forgotten":
        return "forgotten"
    if (record.source, record.settings) != (source_of(source), settings):
        return "changed"
    if record.state == "done":
        return "done" if videos.issuperset(_needed(record)) else "gone"
    return record.state


def _needed(record: ShowRecord) -> Iterator[str]:
    """What must be there of a show that is done: its video, and that file's own record."""
    yield record.output
    yield f"{record.output}.json"


class _Count:
    """Counts what a thread has looked at, and stops it when nobody waits for it any more."""

    def __init__(self) -> None:
        self.looked_at, self.is_unwanted = 0, False

    def __call__(self) -> None:
        if self.is_unwanted:
            raise CancelledError
        self.looked_at += 1


def _look(spec: ArchiveSpec, ledger: Ledger, progress: Progress) -> tuple[Scan, Records, set[str]]:
    """The shows, their records, and the videos that are there."""
    records_count, videos_count = _Count(), _Count()
    with ThreadPoolExecutor(2, thread_name_prefix="asha-look") as threads:
        try:
            reading = threads.submit(ledger.read_all, on_look=records_count)
            listing = threads.submit(_videos, spec, videos_count)
            found = scan(spec, progress)
            progress.stage("reading the ledger", unit="records")
            records = _awaited(reading, records_count, progress)
            progress.stage("finding videos", unit="files")
            videos = _awaited(listing, videos_count, progress)
        finally:
            records_count.is_unwanted = videos_count.is_unwanted = True
    return found, records, videos


def _awaited(future: "Future[Answer]", count: _Count, progress: Progress) -> Answer:
    """What a thread answers; what it does meanwhile is told here, in one thread."""
    told, done = 0, False
    while not done:
        done = bool(wait([future], timeout=TELL_EVERY_S).done)
        looked_at = count.looked_at
        progress.advance(looked_at - told)
        told = looked_at
    return future.result()


def _tell_damaged(records: Records, progress: Progress) -> None:
    for show_id, why in list(records.damaged.items())[:NAMED]:
        progress.note(f"the record of show {show_id} is damaged ({why}); the show is done again")
    if len(records.damaged) > NAMED:
        progress.note(f"{len(records.damaged) - NAMED} more records are damaged")


def _videos(spec: ArchiveSpec, on_look: Callable[[], None]) -> set[str]:
    """Videos and their records below an output, by their paths in it."""
    videos = set()
    output = absolute(spec.output).rstrip("/")
    for key, _ in files_below(output, but=own_folders(spec, output)):
        on_look()
        if key.endswith((VIDEO, VIDEO_RECORD)):
            videos.add(key)
    return videos
