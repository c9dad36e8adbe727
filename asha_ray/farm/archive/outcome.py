"""What a show's record says of it, however it has ended."""

import time
from datetime import UTC, datetime
from typing import Any

from asha_ray.farm.archive.finish import Finished
from asha_ray.farm.archive.hear import Heard
from asha_ray.farm.archive.shows import Show
from asha_ray.farm.archive.todo import Todo, source_of
from asha_ray.storage.ledger import ShowRecord, ShowState

LEFT = ("output", "files", "work", "render_id", "digests")
"""What an earlier version of a show has left is still there, and must be found again."""


def done(show: Show, finished: Finished, work: str) -> ShowRecord:
    """The record of a show that is in its place."""
    manifest, sounding = show.plan.manifest, show.sounding
    return _record(
        show.todo,
        "done",
        began=show.began,
        **_known(show.heard),
        tempo=round(sounding.tempo, 3),
        sections=sounding.sections,
        loudness_lufs=finished.loudness_lufs,
        output=f"{show.name}.mp4",
        files=finished.files,
        work=work,
        render_id=manifest.render_id,
        frames=manifest.num_frames,
        fps=str(manifest.fps),
        size=manifest.size,
        chunks=len(manifest.chunks),
        reused_chunks=show.reused,
        digests={**manifest.digests, "video": finished.sha256},
        quality=finished.quality,
        render_s=round(show.render_s, 3),
    )


def skipped(todo: Todo, heard: Heard, began: float) -> ShowRecord:
    """The record of a show that a rule leaves out."""
    reason = "a rule or its sidecar says so"
    return _record(todo, "skipped", began=began, reason=reason, **_known(heard), **_left(todo))


def failed(
    todo: Todo,
    state: ShowState,
    reason: str,
    began: float,
    show: Show | None = None,
    work: str = "",
) -> ShowRecord:
    """The record of a show that could not be made.

    Args:
        todo: what was asked for.
        state: `failed` or `parked`.
        reason: why.
        began: when it was begun, by the monotonic clock.
        show: its plan, if it came so far; what was begun of it must be found again.
        work: the work root that this is in.
    """
    left = _left(todo) if show is None else _begun(todo, show, work)
    return _record(todo, state, began=began, reason=reason, **left)


def _record(todo: Todo, state: ShowState, *, began: float, **said: Any) -> ShowRecord:
    return ShowRecord(
        show_id=todo.show_id,
        state=state,
        key=todo.source.key,
        source=source_of(todo.source),
        settings=todo.settings,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        attempts=todo.attempts + 1,
        source_bytes=todo.source.num_bytes,
        wall_s=round(time.monotonic() - began, 3),
        **said,
    )


def _known(heard: Heard) -> dict[str, Any]:
    facts = heard.facts
    chapters = tuple((chapter.start_s, chapter.title) for chapter in heard.tags.chapters)
    return {
        "show": facts.show,
        "title": facts.title,
        "artist": facts.artist,
        "album": facts.album,
        "date": facts.date,
        "duration_s": round(facts.duration_s or 0.0, 6),
        "chapters": chapters,
    }


def _begun(todo: Todo, show: Show, work: str) -> dict[str, Any]:
    """What a show has that was planned and is not done, and what it has left before."""
    manifest, left = show.plan.manifest, _left(todo)
    begun: dict[str, Any] = {
        "output": f"{show.name}.mp4",
        "work": work,
        "render_id": manifest.render_id,
        "digests": manifest.digests,
    }
    if left.get("files"):  # an earlier video, which goes once this one is there
        begun |= {name: left[name] for name in ("output", "files")}
    if left.get("work") not in (None, "", work):  # renders in the present one name their sound
        begun |= {name: left[name] for name in ("work", "render_id", "digests")}
    return begun


def _left(todo: Todo) -> dict[str, Any]:
    before = todo.before
    return {name: getattr(before, name) for name in LEFT} if before else {}
