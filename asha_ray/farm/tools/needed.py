"""Which renders of a work root are needed still, and what they need of it."""

import json
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from asha_ray.errors import AshaError, ManifestError, NotFoundError
from asha_ray.storage import Entry, basename, join, parent, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.journal import age_s, is_alive, read_heartbeat
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Manifest

LOOKUPS_AT_ONCE = 16
MAX_RECORD_BYTES = 16 << 20
DAY_S = 86_400.0

_RENDER_ID = re.compile(r"[0-9a-f]{40}")

State = Literal["running", "finished", "unfinished", "unknown"]


@dataclass(frozen=True)
class KnownRender:
    """A render of a work root.

    Attributes:
        render_id: its identity.
        state: `running`: its driver was heard of just now; `finished`: its video is there, with the
            record that names it; `unfinished`: neither; `unknown`: its manifest cannot be read.
        output: its video, as far as that is known.
        kept: whether it is needed, and with it what it needs.
        reason: why, or why not.
        num_bytes: its folder's, without what it needs.
    """

    render_id: str
    state: State
    output: str | None
    kept: bool
    reason: str
    num_bytes: int = 0


@dataclass
class Needs:
    """What kept renders need; it only ever grows while a work root is cleaned.

    Attributes:
        chunks: ids of chunks whose segments are needed.
        features: keys of features that manifests name.
        audio: digests of sound files all of whose features and stems are needed.
        obstacles: why nobody can know what else is needed, a sentence each.
    """

    chunks: set[str] = field(default_factory=set)
    features: set[str] = field(default_factory=set)
    audio: set[str] = field(default_factory=set)
    obstacles: set[str] = field(default_factory=set)


class Survey:
    """The renders of a work root as they were when last looked at.

    Args:
        work: a work root.
        keep_s: how long an unfinished render is needed after its driver was last heard of.
    """

    def __init__(self, work: str, keep_s: float) -> None:
        self._work, self._keep_s = work, keep_s
        self._root = WorkRoot(work)
        self._folders: dict[str, _Folder] = {}
        self._known: dict[str, KnownRender] = {}
        self.needs = Needs()
        self.foreign: list[str] = []

    @property
    def renders(self) -> tuple[KnownRender, ...]:
        """All renders, in the order of their ids."""
        return tuple(self._known[render_id] for render_id in sorted(self._known))

    def is_kept(self, render_id: str) -> bool:
        """Whether a render is needed."""
        return self._known[render_id].kept

    def look(self, entries: Iterable[Entry] | None = None) -> None:
        """Look at all renders, or again at those whose heartbeat or manifest has changed.

        Args:
            entries: the listing of `renders`, where somebody has it already.
        """
        uri = join(self._work, "renders")
        self.foreign = []
        folders = list(self._folders_of(storage_of(uri).list(uri) if entries is None else entries))
        changed = [folder for folder in folders if self._folders.get(folder.render_id) != folder]
        with ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="asha-look") as threads:
            for folder, judged in zip(changed, threads.map(self._judge, changed), strict=True):
                render, manifest = judged
                self._folders[folder.render_id] = folder
                self._known[folder.render_id] = render
                self._add_needs(render, manifest)

    def _folders_of(self, entries: Iterable[Entry]) -> "Iterator[_Folder]":
        prefix = join(self._work, "renders") + "/"

        def render_id_of(entry: Entry) -> str:
            name, slash, _ = entry.uri.removeprefix(prefix).partition("/")
            return name if slash and _RENDER_ID.fullmatch(name) else ""

        for render_id, files in groupby(entries, key=render_id_of):
            if not render_id:
                self.foreign += [file.uri for file in files]
                continue
            folder = _Folder(render_id)
            for file in files:
                folder.add(file)
            yield folder

    def _judge(self, folder: "_Folder") -> tuple[KnownRender, Manifest | None]:
        render_id = folder.render_id
        # In the order in which a driver writes them, so that none is seen as if it had died.
        heartbeat = read_heartbeat(self._root.render_uri(render_id))
        manifest: Manifest | None = None
        try:
            manifest = self._root.read_manifest(render_id)
        except NotFoundError:
            pass
        except ManifestError as error:
            reason = f"{error}; or delete {self._root.render_uri(render_id)} by hand"
            return KnownRender(render_id, "unknown", None, True, reason, folder.num_bytes), None
        return self._state(folder, heartbeat, manifest), manifest

    def _add_needs(self, render: KnownRender, manifest: Manifest | None) -> None:
        if render.state == "unknown":
            self.needs.obstacles.add(render.reason)
        elif not render.kept:
            return
        elif manifest is not None:
            self.needs.chunks.update(chunk.chunk_id for chunk in manifest.chunks)
            self.needs.features.add(str(manifest.digests.get("features")))
            self.needs.audio.add(str(manifest.digests.get("audio")))
        elif render.state == "running":
            self.needs.obstacles.add(
                f"render {render.render_id} has just begun, and has not written yet what it needs; "
                "run this again in a minute"
            )

    def _state(
        self, folder: "_Folder", heartbeat: Mapping[str, Any] | None, manifest: Manifest | None
    ) -> KnownRender:
        def judged(state: State, kept: bool, reason: str, output: str | None) -> KnownRender:
            return KnownRender(folder.render_id, state, output, kept, reason, folder.num_bytes)

        outputs = _outputs(self._work, heartbeat, manifest)
        output = outputs[0] if outputs else None
        if is_alive(heartbeat):
            return judged("running", True, "its driver lives", output)
        if manifest is not None:
            doubt = self._unreachable(outputs[:1], heartbeat)
            for place in outputs:
                try:
                    if _names(place, folder.render_id):
                        return judged("finished", True, "its video is there", place)
                except AshaError as error:
                    doubt = str(error)
            if doubt:
                return judged(
                    "unfinished", True, f"whether its video is there is unknown: {doubt}", output
                )
        heard_s = age_s(heartbeat) if heartbeat else float("inf")
        if heard_s == float("inf"):
            heard_s = time.time() - folder.modified_s
        kept = heard_s < self._keep_s
        reason = f"last heard of {heard_s / DAY_S:.1f} days ago"
        if kept:
            reason += f"; needed for {self._keep_s / DAY_S:g} days, as somebody may go on with it"
        return judged("unfinished", kept, reason, output)

    def _unreachable(self, outputs: list[str], heartbeat: Mapping[str, Any] | None) -> str:
        """Why a video may be there although it is not found from here; empty if it would be."""
        host = str((heartbeat or {}).get("host", ""))
        # Whoever shares a work root on a disk sees the same paths; of a bucket that is not so.
        elsewhere = is_s3(self._work) and host not in ("", platform.node())
        if elsewhere and outputs and not is_s3(outputs[0]):
            return f"it was made on {host}; run this there, or delete the render's folder by hand"
        return ""


@dataclass
class _Folder:
    """What a listing tells of a render's folder; equal to another where nothing has changed."""

    render_id: str
    signature: tuple[tuple[int, float], ...] = ()
    num_bytes: int = field(default=0, compare=False)
    modified_s: float = field(default=0.0, compare=False)

    def add(self, file: Entry) -> None:
        """Count a file in."""
        self.num_bytes += file.num_bytes
        self.modified_s = max(self.modified_s, file.modified_s)
        if basename(file.uri) in ("heartbeat.json", "render.json"):
            self.signature += ((file.num_bytes, file.modified_s),)


def _outputs(
    work: str, heartbeat: Mapping[str, Any] | None, manifest: Manifest | None
) -> list[str]:
    """Where a render's video may be: as it was told, or beside a work root that was moved."""
    told = [manifest.spec.get("output") if manifest else None, (heartbeat or {}).get("output")]
    places = [place for place in told if isinstance(place, str) and place]
    with suppress(AshaError):  # a manifest may be anybody's, and its output no name at all
        places += [join(parent(work), basename(place)) for place in places[:1]]
    return list(dict.fromkeys(places))


def _names(output: str, render_id: str) -> bool:
    """Whether a video is there, and the record beside it names a render.

    Raises:
        AshaError: if that cannot be asked for.
    """
    storage, record_uri = storage_of(output), f"{output}.json"
    if storage.size(output) is None or not 0 < (storage.size(record_uri) or 0) <= MAX_RECORD_BYTES:
        return False
    try:
        record = json.loads(storage.read(record_uri))
    except (NotFoundError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("render_id") == render_id
