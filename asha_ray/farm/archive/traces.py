"""What a show has left in a work root, and which of it other renders need."""

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from asha_ray.errors import ManifestError, NotFoundError
from asha_ray.farm.places import absolute
from asha_ray.farm.tools.clean import audio_of
from asha_ray.farm.tools.needed import DAY_S, Survey
from asha_ray.progress import Progress
from asha_ray.storage import Entry, basename, join, storage_of
from asha_ray.storage.base import is_below
from asha_ray.storage.ledger import ShowRecord
from asha_ray.storage.stems import TRACK
from asha_ray.storage.work import WorkRoot, remove_empty_folders
from asha_ray.values import Manifest

CALLS_AT_ONCE = 16
KEEP_S = 7 * DAY_S
"""How long another's unfinished render needs what it has in common with the show."""

_KEY = re.compile(r"[0-9a-f]{40}")
_Relation = Literal["own", "shares", "apart"]


@dataclass
class Traces:
    """What of a work root goes with a show.

    Attributes:
        work: the work root; empty where there is none.
        videos: of its renders, as paths below the archive's output.
        segments: ids of chunks.
        stems: keys.
        renders: ids.
        entries: kind -> its files; those of `features` and `stems` in the order in which they go.
        kept: what others need of the show's, a sentence each.
    """

    work: str = ""
    videos: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    renders: list[str] = field(default_factory=list)
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)

    def delete(self) -> None:
        """Delete them, so that what is left tells what else there is, until nothing is."""
        if not self.work:
            return
        root, storage = WorkRoot(self.work), storage_of(self.work)
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-forget") as threads:
            list(threads.map(root.delete_segment, self.segments))
        for entry in (*self.entries["features"], *self.entries["stems"]):
            storage.delete(entry.uri)
        for key in self.stems:
            remove_empty_folders(join(self.work, "stems", key))
        for render_id in self.renders:
            root.delete_render(render_id)


def traces_of(
    record: ShowRecord,
    archive: str,
    sounds: Collection[str],
    others: Iterable[ShowRecord],
    progress: Progress,
) -> Traces:
    """Find what a show has left in a work root, earlier renders of its video and sound file too.

    Every render's manifest is read, and of what was heard the note that says of what: three small
    files a show of the archive, 16 at a time.

    Args:
        record: the show's, with the work root.
        archive: the archive's output; renders that go elsewhere are another's.
        sounds: where its sound file is, or was.
        others: records of all other shows that were not taken down.
        progress: hears of each stage.

    Raises:
        StorageError: if something cannot be read.
    """
    if not record.work or not WorkRoot(record.work).exists():
        return Traces()
    return _Search(record, archive, sounds, others, progress).run()


class _Search:
    """One search through a work root."""

    def __init__(
        self,
        record: ShowRecord,
        archive: str,
        sounds: Collection[str],
        others: Iterable[ShowRecord],
        progress: Progress,
    ) -> None:
        self._record, self._sounds, self._progress = record, sounds, progress
        self._archive = absolute(archive).rstrip("/") + "/"
        self._video = f"{self._archive}{record.output}" if record.output else ""
        self._work = record.work
        self._root, self._storage = WorkRoot(record.work), storage_of(record.work)
        self._renders_of_others: dict[str, str] = {}
        self._audio_of_others: dict[str, str] = {}
        # What lies in another work root does not keep anything in this one.
        work = absolute(record.work)
        for other in (other for other in others if other.work and absolute(other.work) == work):
            self._renders_of_others[other.render_id] = other.key
            self._audio_of_others[other.digests.get("audio", "")] = other.key
        self._own: set[str] = set()
        self._chunks: set[str] = set()
        self._audio = {record.digests.get("audio", "")} - {""}
        self._needed_chunks: set[str] = set()
        self._needed_audio: set[str] = set()
        self._traces = Traces(record.work)

    def run(self) -> Traces:
        """Find them."""
        if self._record.render_id:
            self._add_own(self._record.render_id)
        self._find_needs(self._find_sharing())
        self._find_segments()
        self._find_heard()
        self._find_renders()
        return self._traces

    def _add_own(self, render_id: str) -> None:
        self._own.add(render_id)
        manifest = self._manifest(render_id)
        if manifest is not None:
            self._chunks.update(chunk.chunk_id for chunk in manifest.chunks)
            self._audio.add(str(manifest.digests.get("audio", "")))
            self._audio.discard("")
            if self._is_of_its_sound(manifest):
                self._traces.videos.append(_output(manifest).removeprefix(self._archive))

    def _manifest(self, render_id: str) -> Manifest | None:
        # One that is damaged must not keep a show from being taken down: whoever goes on with it
        # renders again what is gone.
        try:
            return self._root.read_manifest(render_id)
        except (NotFoundError, ManifestError):
            return None

    def _find_sharing(self) -> list[str]:
        """Renders of others that share something with this show's, all of which are found."""
        names = self._storage.folders(join(self._work, "renders"))
        render_ids = [name for name in names if _KEY.fullmatch(name)]
        while True:
            found = self._relations(render_ids)
            own = [
                name for name, relation in found.items()
                if relation == "own" and name not in self._own
            ]  # fmt: skip
            if not own:
                return [name for name, relation in found.items() if relation == "shares"]
            for render_id in own:
                self._add_own(render_id)

    def _relations(self, render_ids: list[str]) -> Mapping[str, _Relation]:
        self._progress.stage("looking at renders", len(render_ids), "renders")
        found: dict[str, _Relation] = {}
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-look") as threads:
            relations = threads.map(self._relation, render_ids)
            for render_id, relation in zip(render_ids, relations, strict=True):
                self._progress.advance()
                if relation != "apart":
                    found[render_id] = relation
        return found

    def _relation(self, render_id: str) -> _Relation:
        if render_id in self._own:
            return "own"
        manifest = self._manifest(render_id)
        if manifest is None:
            return "apart"
        if (self._video and _output(manifest) == self._video) or self._is_of_its_sound(manifest):
            return "own"
        shares = manifest.digests.get("audio") in self._audio or any(
            chunk.chunk_id in self._chunks for chunk in manifest.chunks
        )
        return "shares" if shares else "apart"

    def _is_of_its_sound(self, manifest: Manifest) -> bool:
        """Whether a render is of the show as it is now or was before, and of this archive."""
        path = _output(manifest)
        below = path.removeprefix(self._archive)
        is_here = path.startswith(self._archive) and is_below(below)
        return is_here and str(manifest.spec.get("audio")) in self._sounds

    def _find_needs(self, sharing: list[str]) -> None:
        for render_id in sharing:
            survey = Survey(self._work, KEEP_S)
            survey.look(self._storage.list(self._root.render_uri(render_id)))
            self._needed_chunks |= survey.needs.chunks & self._chunks
            self._needed_audio |= survey.needs.audio & self._audio
        for audio in self._audio & set(self._audio_of_others):
            self._needed_audio.add(audio)
            self._keep("its features and stems", self._audio_of_others[audio])
        for render_id in self._own:
            if render_id in self._renders_of_others:
                self._keep(f"render {render_id}", self._renders_of_others[render_id])
                manifest = self._manifest(render_id)
                chunks = manifest.chunks if manifest else ()
                self._needed_chunks.update(chunk.chunk_id for chunk in chunks)

    def _keep(self, what: str, key: str) -> None:
        self._traces.kept.append(f"{what}: {key} is of the same sound")

    def _find_segments(self) -> None:
        if self._chunks & self._needed_chunks:
            number = len(self._chunks & self._needed_chunks)
            self._traces.kept.append(f"{number} segments: other renders need them")
        chunk_ids = sorted(self._chunks - self._needed_chunks)
        uris = [
            uri
            for name in chunk_ids
            for uri in (self._root.record_uri(name), self._root.segment_uri(name))
        ]
        self._traces.segments = chunk_ids
        self._traces.entries["segments"] = self._there(uris)

    def _there(self, uris: list[str]) -> list[Entry]:
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-look") as threads:
            sizes = threads.map(self._storage.size, uris)
            return [
                Entry(uri, size) for uri, size in zip(uris, sizes, strict=True) if size is not None
            ]

    def _find_heard(self) -> None:
        # Notes of whose they are go last: by them an interrupted takedown finds what is left.
        goes = self._audio - self._needed_audio
        features = self._storage.list(join(self._work, "features")) if goes else ()
        keys = {basename(entry.uri).partition(".")[0] for entry in features}
        uris = [
            uri
            for key in self._heard("features", keys, goes)
            for uri in (self._root.features_uri(key), self._root.features_note_uri(key))
        ]
        self._traces.entries["features"] = self._there(uris)
        keys = set(self._storage.folders(join(self._work, "stems"))) if goes else set()
        self._traces.stems = self._heard("stems", keys, goes)
        self._traces.entries["stems"] = [
            entry
            for key in self._traces.stems
            for entry in sorted(
                self._storage.list(join(self._work, "stems", key)),
                key=lambda entry: (basename(entry.uri) == TRACK, not entry.uri.endswith(".json")),
            )
        ]

    def _heard(self, kind: str, keys: Iterable[str], audio: set[str]) -> list[str]:
        ours = sorted(key for key in keys if _KEY.fullmatch(key))
        self._progress.stage(f"looking at {kind}", len(ours), kind)
        found = []
        with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="asha-note") as threads:
            for key, of in zip(
                ours, threads.map(partial(audio_of, self._work, kind), ours), strict=True
            ):
                self._progress.advance()
                if of in audio:
                    found.append(key)
        return found

    def _find_renders(self) -> None:
        self._traces.renders = sorted(self._own - set(self._renders_of_others))
        self._traces.entries["renders"] = [
            entry
            for render_id in self._traces.renders
            for entry in self._storage.list(self._root.render_uri(render_id))
        ]


def _output(manifest: Manifest) -> str:
    return str(manifest.spec.get("output", ""))
