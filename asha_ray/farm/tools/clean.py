"""`clean`: what a work root holds that no finished or running render needs, listed and deleted."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

from asha_ray.errors import NotFoundError, SpecError
from asha_ray.farm.places import absolute
from asha_ray.farm.tools.needed import DAY_S, KnownRender, Survey
from asha_ray.progress import NullProgress, Progress
from asha_ray.storage import Entry, basename, join, storage_of
from asha_ray.storage.base import Unfinished
from asha_ray.storage.journal import is_alive, read_heartbeat
from asha_ray.storage.stems import TRACK
from asha_ray.storage.work import WorkRoot, remove_empty_folders

KINDS = ("segments", "features", "stems", "renders", "jobs", "temporaries")
KEPT = ("jobs", "inputs", "training")
"""Folders of jobs, of what was sent along with them, and of trainings: nobody knows who goes on."""
CALLS_AT_ONCE = 16
BATCH = 1000
LOOK_AGAIN_S = 30.0
"""How old the knowledge of which renders there are may be when a segment is deleted."""
LISTENING_S = 3600.0
"""What was heard so lately may be part of listening that goes on; that has no heartbeat yet."""

SPARED = -1
"""Bytes that were freed by what was not deleted, since it is needed after all."""

Thing = TypeVar("Thing")

_SEGMENT = re.compile(r"([0-9a-f]{40})\.(?:json|mp4)")
_FEATURES = re.compile(r"([0-9a-f]{40})\.(?:json|npz)")
_STEMS = re.compile(r"([0-9a-f]{40})/(?:track\.json|\d{5,}\.json|\d{5,}-[\w.-]+\.flac)")


@dataclass(frozen=True)
class Count:
    """How many things of a kind there are, and bytes in them."""

    needed: int = 0
    needed_bytes: int = 0
    unneeded: int = 0
    unneeded_bytes: int = 0

    def plus(self, needed: bool, num_bytes: int) -> "Count":
        """The same, and one thing more."""
        if needed:
            more = (self.needed + 1, self.needed_bytes + num_bytes)
            return Count(*more, self.unneeded, self.unneeded_bytes)
        more = (self.unneeded + 1, self.unneeded_bytes + num_bytes)
        return Count(self.needed, self.needed_bytes, *more)


@dataclass(frozen=True)
class CleanResult:
    """What a work root holds, and what became of it.

    Attributes:
        work: the work root.
        deleted: whether anything was to be deleted; else nothing was touched.
        keep_days: how long unfinished renders count as needed.
        counts: by kind, see `KINDS`, as found.
        freed_bytes: what was freed, or would be.
        renders: all of them, and why each is kept or not.
        kept: why more is kept than renders need, a sentence each.
        blocked: whether what renders need cannot be known, so that only temporaries go.
        foreign: files with names that are not given here; they are left alone.
    """

    work: str
    deleted: bool
    keep_days: float
    counts: Mapping[str, Count]
    freed_bytes: int
    renders: tuple[KnownRender, ...]
    kept: tuple[str, ...]
    blocked: bool
    foreign: tuple[str, ...]


def clean(
    work: str,
    *,
    delete: bool = False,
    keep_days: float = 7,
    progress: Progress | None = None,
) -> CleanResult:
    """List what no render needs of a work root, and delete it if asked to.

    Needed are the segments, features and stems of renders that run, are finished (their video is
    there, and the record beside it names them), or were heard of in the last `keep_days`.

    Renders may begin and go on meanwhile, and no lock is needed. Which renders there are is looked
    up again while segments are deleted. A render that began since and has found a segment that is
    then deleted notices it when it reads it, and renders that segment again; a segment's record
    goes before its file, so that no record promises what is gone. Features are measured again.
    Only a track that is being listened to by way of stems that no render has needed for
    `keep_days` may lose them; that render fails, and the same command, run again, succeeds. A
    clean that was interrupted is gone on with by the same command: a render's manifest goes last.

    Args:
        work: a work root, local or `s3://`.
        delete: delete; else nothing is touched.
        keep_days: how long an unfinished render is needed after its driver was last heard of, and
            whatever was heard and belongs to no render.
        progress: hears of each stage.

    Raises:
        NotFoundError: if there is no work root.
        SpecError: if `keep_days` is no number of days.
        StorageError: if something cannot be read or deleted.
    """
    if not keep_days >= 0:
        raise SpecError(f"keep_days: {keep_days} is no number of days; give 0 or more")
    progress = progress or NullProgress()
    work = absolute(work)
    root = WorkRoot(work)
    if not root.exists():
        hint = join(work, ".asha")
        beside = f"; {hint} is one" if WorkRoot(hint).exists() else ""
        raise NotFoundError(
            f"cleaning {work}: no work root is there; give the folder that renders were given as "
            f"--work, or .asha beside their videos{beside}"
        )
    progress.stage("looking", unit="files")
    found = _Found(work, keep_days * DAY_S)
    found.look(progress)
    freed_bytes = sum(count.unneeded_bytes for count in found.counts.values())
    if delete:
        freed_bytes = _Deletion(found, progress).run()
    return CleanResult(
        work=work,
        deleted=delete,
        keep_days=keep_days,
        counts=found.counts,
        freed_bytes=freed_bytes,
        renders=found.survey.renders,
        kept=found.kept(),
        blocked=found.blocked,
        foreign=tuple(found.foreign),
    )


@dataclass
class _Heard:
    """Features or stems that lie under one key."""

    kind: str
    key: str
    num_bytes: int = 0
    modified_s: float = 0.0
    audio: str | None = None


@dataclass
class _Found:
    """What one listing of a work root tells, and of it, what nobody needs."""

    work: str
    keep_s: float
    counts: dict[str, Count] = field(default_factory=lambda: dict.fromkeys(KINDS, Count()))
    segments: list[tuple[str, int]] = field(default_factory=list)
    heard: list[_Heard] = field(default_factory=list)
    temporaries: list[Unfinished] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.survey = Survey(self.work, self.keep_s)
        self._num_kept_for: dict[str, int] = {}

    @property
    def blocked(self) -> bool:
        """Whether what renders need is unknown."""
        return bool(self.survey.needs.obstacles)

    def look(self, progress: Progress) -> None:
        """List everything once, and tell what is needed from what is not."""
        heard: list[_Heard] = []
        prefix = f"{self.work.rstrip('/')}/"

        def folder_of(entry: Entry) -> str:
            progress.advance()
            return entry.uri.removeprefix(prefix).partition("/")[0]

        # A listing is sorted, so renders have told what they need before segments and stems come.
        for folder, entries in groupby(storage_of(self.work).list(self.work), key=folder_of):
            if folder == "renders":
                self.survey.look(entries)
                self.foreign += self.survey.foreign
            elif folder == "segments":
                self._look_at_segments(entries)
            elif folder == "features":
                heard += self._heard(folder, _FEATURES, entries)
            elif folder == "stems":
                heard += self._heard(folder, _STEMS, entries)
            elif folder in KEPT:
                for entry in entries:
                    self._count("jobs", True, entry.num_bytes)
            else:
                self.foreign += [entry.uri for entry in entries]
        self._look_at_heard(heard)
        for render in self.survey.renders:
            self._count("renders", render.kept or self.blocked, render.num_bytes)
        for left in storage_of(self.work).unfinished(self.work):
            self.temporaries.append(left)
            self._count("temporaries", False, left.num_bytes)

    def _count(self, kind: str, needed: bool, num_bytes: int) -> None:
        self.counts[kind] = self.counts[kind].plus(needed, num_bytes)

    def _grouped(
        self, folder: str, pattern: re.Pattern[str], entries: Iterable[Entry]
    ) -> Iterator[tuple[str, list[Entry]]]:
        """Files of ours by their key; others are noted as foreign."""
        prefix = join(self.work, folder) + "/"

        def key_of(entry: Entry) -> str:
            match = pattern.fullmatch(entry.uri.removeprefix(prefix))
            return match[1] if match else ""

        for key, files in groupby(entries, key=key_of):
            if key:
                yield key, list(files)
            else:
                self.foreign += [file.uri for file in files]

    def _look_at_segments(self, entries: Iterable[Entry]) -> None:
        for chunk_id, files in self._grouped("segments", _SEGMENT, entries):
            num_bytes = sum(file.num_bytes for file in files)
            needed = self.blocked or chunk_id in self.survey.needs.chunks
            self._count("segments", needed, num_bytes)
            if not needed:
                self.segments.append((chunk_id, num_bytes))

    def _heard(
        self, kind: str, pattern: re.Pattern[str], entries: Iterable[Entry]
    ) -> Iterator[_Heard]:
        for key, files in self._grouped(kind, pattern, entries):
            num_bytes = sum(file.num_bytes for file in files)
            yield _Heard(kind, key, num_bytes, max(file.modified_s for file in files))

    def _look_at_heard(self, heard: list[_Heard]) -> None:
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-note") as threads:
            audios = threads.map(lambda item: audio_of(self.work, item.kind, item.key), heard)
            for item, audio in zip(heard, audios, strict=True):
                item.audio = audio
                why = "needed" if self.blocked else self.why_kept(item)
                self._count(item.kind, bool(why), item.num_bytes)
                if not why:
                    self.heard.append(item)
                elif why != "needed":
                    self._num_kept_for[why] = self._num_kept_for.get(why, 0) + 1

    def why_kept(self, item: _Heard) -> str:
        """Why features or stems are kept, as it is known now; empty if they are not."""
        needs = self.survey.needs
        named = item.kind == "features" and item.key in needs.features
        if named or item.audio in needs.audio:
            return "needed"
        if time.time() - item.modified_s < max(self.keep_s, LISTENING_S):
            age = f"{self.keep_s / DAY_S:g} days" if self.keep_s > LISTENING_S else "an hour"
            return f"of no render but younger than {age}; somebody may go on with them"
        if item.audio is None and needs.audio:
            return "by an earlier asha-ray, not known whose; they go when no render is kept"
        return ""

    def kept(self) -> tuple[str, ...]:
        """Why more is kept than renders are known to need, a sentence each."""
        kept = [f"{number} features or stems: {why}" for why, number in self._num_kept_for.items()]
        return (*sorted(self.survey.needs.obstacles), *kept)


class _Deletion:
    """The deletion of what was found, as far as still nobody needs it.

    Args:
        found: the work root.
        progress: hears how far it is.
    """

    def __init__(self, found: _Found, progress: Progress) -> None:
        self._found, self._progress = found, progress
        self._root, self._storage = WorkRoot(found.work), storage_of(found.work)
        self._dropped = [render for render in found.survey.renders if not render.kept]
        self._looked = float("-inf")
        self._num_spared = 0

    def run(self) -> int:
        """Delete; returns how many bytes were freed."""
        found, total = self._found, sum(count.unneeded for count in self._found.counts.values())
        self._progress.stage("deleting", total, "things")
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-clean") as threads:
            freed = self._each(threads, found.temporaries, self._discard)
            freed += self._each(threads, found.segments, self._delete_segment)
            freed += self._each(threads, found.heard, self._delete_heard)
            freed += self._each(threads, self._dropped, self._delete_render)
        if self._num_spared:
            self._progress.note(
                f"{self._num_spared} things were spared: a render that needs them has begun, or "
                "gone on, meanwhile"
            )
        return freed

    def _each(
        self, threads: ThreadPoolExecutor, things: list[Thing], delete: Callable[[Thing], int]
    ) -> int:
        freed = 0
        for start in range(0, len(things), BATCH):
            if time.monotonic() - self._looked > LOOK_AGAIN_S:
                self._found.survey.look()
                self._looked = time.monotonic()
            for num_bytes in threads.map(delete, things[start : start + BATCH]):
                self._progress.advance()
                self._num_spared += num_bytes == SPARED
                freed += max(0, num_bytes)
        return freed

    def _discard(self, left: Unfinished) -> int:
        self._storage.discard(left)
        return left.num_bytes

    def _delete_segment(self, segment: tuple[str, int]) -> int:
        chunk_id, num_bytes = segment
        if self._found.blocked or chunk_id in self._found.survey.needs.chunks:
            return SPARED
        self._root.delete_segment(chunk_id)
        return num_bytes

    def _delete_heard(self, item: _Heard) -> int:
        if self._found.blocked or self._found.why_kept(item):
            return SPARED
        if item.kind == "features":
            self._root.delete_features(item.key)
        else:
            self._delete_stems(item.key)
        return item.num_bytes

    def _delete_stems(self, key: str) -> None:
        folder = join(self._found.work, "stems", key)
        uris = [entry.uri for entry in self._storage.list(folder)]
        ours = [uri for uri in uris if _STEMS.fullmatch(f"{key}/{basename(uri)}")]
        # What promises files goes before the files: the track's note, the parts' records.
        for uri in sorted(
            ours, key=lambda uri: (basename(uri) != TRACK, not uri.endswith(".json"))
        ):
            self._storage.delete(uri)
        remove_empty_folders(folder)

    def _delete_render(self, render: KnownRender) -> int:
        heartbeat = read_heartbeat(self._root.render_uri(render.render_id))
        kept = self._found.survey.is_kept(render.render_id)
        if self._found.blocked or kept or is_alive(heartbeat):
            return SPARED
        self._root.delete_render(render.render_id)
        return render.num_bytes


def audio_of(work: str, kind: str, key: str) -> str | None:
    """The digest of the sound file that features or stems belong to, None if nothing tells it.

    Args:
        work: a work root.
        kind: `features` or `stems`.
        key: of them.
    """
    uri = WorkRoot(work).features_note_uri(key)
    if kind == "stems":
        uri = join(work, "stems", key, TRACK)
    try:
        note = json.loads(storage_of(work).read(uri))
    except (NotFoundError, ValueError, RecursionError):
        return None
    audio = note.get("audio") if isinstance(note, dict) else None
    return audio if isinstance(audio, str) and audio else None
