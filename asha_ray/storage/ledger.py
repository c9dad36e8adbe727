"""The ledger of an archive: one small record for each show, and what makes reading them quick.

All lies in `.ledger` of the archive's output: `shows/<show_id>.json` is a show's record, written
when the show has ended in one way or another, `names/<hash>.json` says which show has an output's
name, `runs/<run>/` holds each run's heartbeat, events and log, `archive.json` what was asked for
last, `thumbs/` small pictures of shows, and `index.parquet` all records in one file, as they were
when a run last wrote it.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic_core import from_json

from asha_ray.errors import ManifestError, NotFoundError
from asha_ray.storage.base import Entry, basename, is_below, join, safe_name, storage_of
from asha_ray.storage.journal import read_heartbeat
from asha_ray.storage.ledger_index import Stored, read_index, write_index
from asha_ray.storage.manifest import brief

VERSION = 1
MAX_RECORD_BYTES = 1 << 18
MAX_NOTE_BYTES = 64 << 20
"""Of a plan, which may name every show."""
LOOKUPS_AT_ONCE = 16
"""Records that are read side by side; in a bucket each takes some 20 ms."""
MAX_RUNS = 100
MAX_INT64 = 2**63 - 1
"""Of any number here; what is read from a file may have as many digits as it likes."""

_SHOW_ID = re.compile(r"[0-9a-f]{32}")

ShowState = Literal["done", "failed", "parked", "skipped", "forgotten"]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Large = Annotated[int, Field(ge=0, le=MAX_INT64)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Level = Annotated[float, Field(ge=-1e6, le=1e6)]


@dataclass(frozen=True)
class ShowRecord:
    """How a show has ended.

    Attributes:
        show_id: hash of its key.
        state: `done`; `failed`, to be tried again by itself; `parked`, to be tried again when a
            person says so or the show has changed; `skipped`, as its settings say; `forgotten` for
            good, with nothing else known once all that was made of it is gone.
        key: its path below the source.
        source: what its sound file was: bytes and version.
        settings: digest of all that its settings may have come from.
        time: when this was written, in UTC.
        attempts: how often it was tried since it or its settings last changed.
        reason: why it failed, and what to do.
        show: the name of the series that it belongs to.
        title: of the recording.
        artist: whose it is.
        album: what it is a part of.
        date: when it was on air, or empty.
        source_bytes: of the sound file.
        duration_s: of the sound.
        tempo: beats per minute.
        loudness_lufs: integrated loudness (EBU R 128); None where it was not measured.
        sections: seconds at which something new begins.
        chapters: `[seconds, title]` of each.
        output: the video's path below the archive's output.
        files: all that was written for it, likewise; the video is one of them.
        work: the work root that its segments are in.
        render_id: its render in the work root.
        frames: in the video.
        fps: as `60` or `30000/1001`.
        size: width and height.
        chunks: of its render.
        reused_chunks: of these, those that were there already.
        digests: sha256 of audio, model, features and keyframes, and of the `video`.
        quality: what the check of the video found; see `Quality`.
        render_s: seconds of workers that rendering took, in all.
        wall_s: seconds from its beginning to its end.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    show_id: str
    state: ShowState
    key: str = ""
    source: str = ""
    settings: str = ""
    time: str = ""
    attempts: Count = 0
    reason: str = ""
    show: str = ""
    title: str = ""
    artist: str = ""
    album: str = ""
    date: str = ""
    source_bytes: Large = 0
    duration_s: Seconds = 0.0
    tempo: Level = 0.0
    loudness_lufs: Level | None = None
    sections: tuple[float, ...] = ()
    chapters: tuple[tuple[float, str], ...] = ()
    output: str = ""
    files: tuple[str, ...] = ()
    work: str = ""
    render_id: str = ""
    frames: Large = 0
    fps: str = ""
    size: tuple[Count, Count] = (0, 0)
    chunks: Count = 0
    reused_chunks: Count = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    render_s: Seconds = 0.0
    wall_s: Seconds = 0.0


_CODEC = TypeAdapter(ShowRecord)


class Records(Mapping[str, ShowRecord]):
    """Records by their shows' ids, as they were when the ledger was read.

    A record takes a third of the memory as text, and is decoded each time that it is asked for.

    Attributes:
        damaged: show id -> what is wrong with a record that is no part of these.
        num_read: records that were newer than what was known of them.
    """

    def __init__(
        self, stored: Mapping[str, Stored], damaged: Mapping[str, str], num_read: int = 0
    ) -> None:
        self.stored, self.damaged, self.num_read = stored, damaged, num_read

    def __getitem__(self, show_id: str) -> ShowRecord:
        """A show's record."""
        return decode_record(self.stored[show_id].content, show_id, f"of show {show_id}")

    def __iter__(self) -> Iterator[str]:
        """The shows' ids."""
        return iter(self.stored)

    def __len__(self) -> int:
        """How many shows have ended."""
        return len(self.stored)


class Ledger:
    """The records of an archive's shows, and whose the names of its outputs are.

    Args:
        output: of the archive, a folder or prefix.
    """

    def __init__(self, output: str) -> None:
        self.folder = join(output, ".ledger")
        self._storage = storage_of(output)

    def write(self, record: ShowRecord) -> None:
        """Say how a show has ended.

        Raises:
            ManifestError: if the record could not be read again; see `encode_record`.
        """
        self._storage.write(self._record_uri(record.show_id), encode_record(record))

    def read(self, show_id: str) -> ShowRecord:
        """How a show has ended.

        Raises:
            NotFoundError: if it has not.
            ManifestError: if its record is damaged or too new.
        """
        uri = self._record_uri(show_id)
        self._require_bounded(uri, MAX_RECORD_BYTES)
        return decode_record(self._storage.read(uri), show_id, uri)

    def read_all(
        self, known: Records | None = None, on_look: Callable[[], None] = lambda: None
    ) -> Records:
        """All records, of which only those are read that are newer than what is known of them.

        Args:
            known: what this gave the last time; the index where None.
            on_look: called for each record that is listed, and again for each that is read.

        Raises:
            ManifestError: if a newer asha-ray has written one; what is damaged is in `damaged`.
        """
        before = known.stored if known is not None else self._read_index()
        stored: dict[str, Stored] = {}
        unknown: list[Entry] = []
        for entry in self._storage.list(join(self.folder, "shows")):
            show_id = basename(entry.uri).removesuffix(".json")
            if not (_SHOW_ID.fullmatch(show_id) and entry.uri.endswith(".json")):
                continue
            on_look()
            found = before.get(show_id)
            if found is not None and found.version == entry.version:
                stored[show_id] = found
            else:
                unknown.append(entry)
        damaged: dict[str, str] = {}
        for entry, content in self._contents(unknown):
            on_look()
            show_id = basename(entry.uri).removesuffix(".json")
            try:
                _decoded(content, show_id, entry.uri)
                stored[show_id] = Stored(entry.version, content)
            except ValueError as error:
                damaged[show_id] = brief(error)
        return Records(stored, damaged, len(unknown))

    def write_index(self, records: Records) -> None:
        """Make the next `read_all` quick.

        It tells nothing that the records do not: of two that write it at once the last wins, and
        what it does not know is read from the records.
        """
        write_index(self._index_uri, records.stored)

    def claim_name(self, name: str, show_id: str) -> bool:
        """Take an output's name for a show, unless another has it; whether the show has it now.

        A storage has no way to make a file only where there is none. So of two runs that claim a
        name for two shows within the same moment both may be told that they have it, and the later
        one has: ask `holds_name` before publishing. Then two shows lie on one name only if one of
        these claims took as long as the other's show did to be rendered.

        Args:
            name: folded, so that names that some disk takes for the same are the same.
            show_id: the show's.
        """
        holder = self.name_holder(name)
        if holder is None:
            data = {"version": VERSION, "name": name, "show_id": show_id}
            self._storage.write(self._name_uri(name), _to_json(data))
            holder = self.name_holder(name)
        return holder == show_id

    def holds_name(self, name: str, show_id: str) -> bool:
        """Whether an output's name is a show's."""
        return self.name_holder(name) == show_id

    def name_holder(self, name: str) -> str | None:
        """The id of the show that has an output's name; None where none has."""
        with suppress(ManifestError):  # a damaged claim is nobody's
            data = self._read_note(self._name_uri(name), MAX_RECORD_BYTES) or {}
            if _SHOW_ID.fullmatch(str(data.get("show_id"))):
                return str(data["show_id"])
        return None

    def release_name(self, name: str, show_id: str) -> None:
        """Let others have an output's name; nothing where it is not this show's."""
        if self.holds_name(name, show_id):
            self._storage.delete(self._name_uri(name))

    def claims(self, on_look: Callable[[], None] = lambda: None) -> Mapping[str, str]:
        """Whose each claim of a name is: where it lies, and the id of the show.

        Args:
            on_look: called for each that is read.
        """
        found = {}
        for entry, content in self._contents(list(self._storage.list(join(self.folder, "names")))):
            on_look()
            with suppress(ValueError):  # a damaged claim is nobody's
                found[entry.uri] = str(_from_json(content).get("show_id"))
        return found

    def run_folder(self, run: str) -> str:
        """All that is known of a run."""
        return join(self.folder, "runs", safe_name(run, "run"))

    def runs(self, but: Collection[str] = ()) -> list[Mapping[str, Any]]:
        """The latest runs' heartbeats with each `run`'s name, the latest first; 100 at most.

        Args:
            but: names of runs that are left out.
        """
        found = set(self._storage.folders(join(self.folder, "runs"))).difference(but)
        names = sorted(found, reverse=True)[:MAX_RUNS]
        with ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="asha-runs") as threads:
            beats = list(threads.map(lambda name: read_heartbeat(self.run_folder(name)), names))
        return [
            {**beat, "run": name}
            for name, beat in zip(names, beats, strict=True)
            if beat is not None
        ]

    def write_plan(self, data: Mapping[str, Any]) -> None:
        """Keep what a plan has found."""
        self._storage.write(join(self.folder, "plan.json"), _to_json(data))

    def read_plan(self) -> Mapping[str, Any] | None:
        """What a plan has found last; None where there is none.

        Raises:
            ManifestError: if it is damaged.
        """
        return self._read_note(join(self.folder, "plan.json"), MAX_NOTE_BYTES)

    def write_spec(self, data: Mapping[str, Any]) -> None:
        """Keep what was asked for."""
        self._storage.write(join(self.folder, "archive.json"), _to_json(data))

    def read_spec(self) -> Mapping[str, Any] | None:
        """What was asked for last; None where nothing was.

        Raises:
            ManifestError: if it is damaged.
        """
        return self._read_note(join(self.folder, "archive.json"), MAX_NOTE_BYTES)

    @property
    def _index_uri(self) -> str:
        return join(self.folder, "index.parquet")

    def _record_uri(self, show_id: str) -> str:
        return join(self.folder, "shows", f"{safe_name(show_id, 'show')}.json")

    def _name_uri(self, name: str) -> str:
        return join(self.folder, "names", f"{hashlib.sha256(name.encode()).hexdigest()}.json")

    def _read_index(self) -> Mapping[str, Stored]:
        """What the index holds; a record that is none is looked for in its own file."""
        stored = read_index(self._index_uri)
        for show_id in list(stored):
            try:
                decode_record(stored[show_id].content, show_id, self._index_uri)
            except ManifestError:
                del stored[show_id]
        return stored

    def _contents(self, entries: list[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of each file that is there still; nothing of one that is too large."""

        def read(entry: Entry) -> bytes | None:
            try:
                return self._storage.read(entry.uri) if entry.num_bytes <= MAX_RECORD_BYTES else b""
            except NotFoundError:
                return None

        with ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="asha-ledger") as threads:
            try:
                for entry, content in zip(entries, threads.map(read, entries), strict=True):
                    if content is not None:
                        yield entry, content
            finally:  # who stops at an error waits for no other record
                threads.shutdown(cancel_futures=True)

    def _read_note(self, uri: str, max_bytes: int) -> Mapping[str, Any] | None:
        try:
            self._require_bounded(uri, max_bytes)
            data = _from_json(self._storage.read(uri))
        except NotFoundError:
            return None
        except ValueError as error:
            raise ManifestError(
                f"reading {uri}: it is damaged ({brief(error)}); delete it, it is written anew"
            ) from error
        return data

    def _require_bounded(self, uri: str, max_bytes: int) -> None:
        num_bytes = self._storage.size(uri) or 0
        if num_bytes > max_bytes:
            raise ManifestError(
                f"reading {uri}: it has {num_bytes} bytes, too many; delete it, it is written anew"
            )


def thumbnail_uri(output: str, show_id: str) -> str:
    """Where a show's small picture lies, a JPEG."""
    return join(output, ".ledger", "thumbs", f"{safe_name(show_id, 'show')}.jpg")


def encode_record(record: ShowRecord) -> bytes:
    """A record as the content of a file, less the last chapters where all of them are too much.

    Raises:
        ManifestError: if it could not be read again.
    """
    data = {"version": VERSION, **_plain(asdict(record))}
    excess = len(_to_utf8(data)) - MAX_RECORD_BYTES
    while excess > 0 and data["chapters"]:
        excess -= len(_to_utf8(data["chapters"].pop())) + len(",")
    content = _to_utf8(data)
    try:
        _decoded(content, record.show_id, "")
    except ValueError as error:
        raise ManifestError(
            f"writing the record of show {record.show_id}: it could not be read again "
            f"({brief(error)}); shorten the texts of its tags or its sidecar"
        ) from error
    return content


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: silence is infinitely quiet, and a tag may be half a letter."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode_record(content: bytes, show_id: str, source: str) -> ShowRecord:
    """Read a record that may be anybody's.

    Args:
        content: of its file.
        show_id: whose it must be.
        source: what to call it in an error.

    Raises:
        ManifestError: if it is damaged, or of a version that is not known here.
    """
    try:
        return _decoded(content, show_id, source)
    except ValueError as error:
        raise ManifestError(
            f"reading record {source}: it is damaged ({brief(error)}); delete it, and the next run "
            "does its show again"
        ) from error


def _decoded(content: bytes, show_id: str, source: str) -> ShowRecord:
    if not 0 < len(content) <= MAX_RECORD_BYTES:
        raise ValueError(f"no record is empty, or larger than {MAX_RECORD_BYTES >> 10} kB")
    data = _from_json(content)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ManifestError(
            f"reading record {source}: it is of version {version}, and this asha-ray knows version "
            f"{VERSION}; use the asha-ray that wrote it, or a newer one"
        )
    if version != VERSION:
        raise ValueError("it has no version")
    record = _CODEC.validate_python(data)
    _check(record, show_id)
    return record


def _check(record: ShowRecord, show_id: str) -> None:
    """A record is of its own show, and names nothing outside the archive's output."""
    if record.show_id != show_id:
        raise ValueError("it is another show's")
    if not _is_bounded(record.quality):
        raise ValueError("its quality holds what is no number")
    outside = [path for path in _paths(record) if not is_below(path)]
    if outside:
        raise ValueError(f"{outside[0][:80]!r} does not lie below the output")


def _is_bounded(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_bounded, (*value, *value.values())))
    if isinstance(value, list):
        return all(map(_is_bounded, value))
    return not isinstance(value, int | float) or abs(value) <= MAX_INT64


def _paths(record: ShowRecord) -> Iterable[str]:
    return (*record.files, record.output) if record.output else record.files


def _to_json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, allow_nan=False) + "\n").encode()


def _to_utf8(data: Any) -> bytes:
    """Half the bytes of `_to_json` for most of the world's letters, and no half a letter."""
    return (json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _from_json(content: bytes) -> dict[str, Any]:
    data = from_json(content, allow_inf_nan=False)
    if not isinstance(data, dict):
        raise ValueError("it holds no fields")
    return data
