"""What is said of an archive, to people and to programs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from asha_ray.cli.progress import clock
from asha_ray.cli.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asha_ray.farm.archive.forget import Forgotten
    from asha_ray.farm.archive.status import ArchiveStatus, LiveRun, Trouble

MAX_SHOWN = 20
"""Shows of a kind that are shown to people; programs are told of more."""


def archive_document(status: "ArchiveStatus") -> dict[str, Any]:
    """An archive's status as plain data."""
    return asdict(status)


def archive_text(status: "ArchiveStatus") -> str:
    """An archive's status as a few lines, and a table of the runs that work on it."""
    rows = [
        ("archive", status.output),
        ("source", status.source),
        ("shows", _shows(status)),
        ("sound", _sound(status)),
        ("rate", "" if status.rate is None else f"{status.rate:.1f} hours of sound an hour"),
        ("left", "" if status.left_s is None else clock(status.left_s)),
        ("used", _used(status)),
        ("cost", "" if status.cost is None else f"{status.cost:.2f} {status.currency} so far"),
    ]
    said = [f"{name:<8}  {value}" for name, value in rows if value]
    if status.running:
        said += ["", *_runs(status.running)]
    said += _troubles("parked until a person looks", status.parked, status.num_parked)
    said += _troubles("failed, and tried again by themselves", status.failed, status.num_failed)
    if status.refused:
        refused = [f"  {name}: {reason}" for name, reason in status.refused]
        said += ["", "no shows:", *_first(refused, len(refused))]
    return "\n".join(said)


def forgotten_document(forgotten: "Forgotten") -> dict[str, Any]:
    """A takedown as plain data."""
    return asdict(forgotten)


def forgotten_text(forgotten: "Forgotten") -> str:
    """What a takedown has removed, or would, and what it has left."""
    what = "would go" if forgotten.dry_run else "gone"
    said = [f"{'would forget' if forgotten.dry_run else 'forgotten'}: show {forgotten.show_id}"]
    for kind, uris in forgotten.removed.items():
        said += [f"{what}: {kind}", *_first([f"  {uri}" for uri in uris], len(uris))]
    said += [f"kept: {why}" for why in forgotten.kept]
    return "\n".join([*said, f"{forgotten.num_bytes / 1e6:.1f} MB in all"])


def _shows(status: "ArchiveStatus") -> str:
    counts = [
        (status.num_done, "done"),
        (status.num_waiting, "waiting"),
        (status.num_failed, "failed"),
        (status.num_parked, "parked"),
        (status.num_skipped, "left out by their settings"),
        (status.num_forgotten, "forgotten"),
    ]
    return f"{status.num_shows}: " + (
        ", ".join(f"{count} {what}" for count, what in counts if count) or "none yet"
    )


def _sound(status: "ArchiveStatus") -> str:
    said = f"{status.hours_done:.1f} hours done"
    if status.hours_waiting is None:
        return f"{said}; how much waits is unknown until the first show is done"
    return f"{said}, about {status.hours_waiting:.1f} waiting" if status.hours_waiting else said


def _used(status: "ArchiveStatus") -> str:
    used = [(status.gpu_hours, "GPU hours"), (status.cpu_hours, "CPU hours")]
    return ", ".join(f"{hours:.2f} {what}" for hours, what in used if hours)


def _runs(runs: "Sequence[LiveRun]") -> list[str]:
    lines: list[tuple[str, ...]] = [
        ("run", "host", "shows", "done", "failed", "parked", "in hand", "workers", "rate")
    ]
    for run in runs:
        counts = (run.num_shows, run.num_done, run.num_failed, run.num_parked, len(run.in_hand))
        workers = "" if run.workers is None else str(run.workers)
        rate = "" if run.rate is None else f"{run.rate:.1f}x"
        lines.append((run.driver, run.host, *map(str, counts), workers, rate))
    return [line.rstrip() for line in table(lines, num_words=2)]


def _troubles(head: str, troubles: "Sequence[Trouble]", count: int) -> list[str]:
    if not troubles:
        return []
    lines = [
        f"  {trouble.key}: {trouble.reason}"
        + (f" (tried {trouble.attempts} times)" * (trouble.attempts > 1))
        for trouble in troubles
    ]
    return ["", f"{head}:", *_first(lines, count)]


def _first(lines: list[str], count: int) -> list[str]:
    shown = lines[:MAX_SHOWN]
    more = count - len(shown)
    return shown if more <= 0 else [*shown, f"  and {more} more; see --json"]
