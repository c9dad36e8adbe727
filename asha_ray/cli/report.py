"""What `inspect`, `bench` and `clean` print, for people and for programs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asha_ray.farm.tools.bench import BenchResult
    from asha_ray.farm.tools.clean import CleanResult
    from asha_ray.farm.tools.inspect import Inspection

MAX_SHOWN = 20
"""Renders of one state, or files, that are shown to people; programs are told all."""


def inspection_document(video: str, inspection: "Inspection") -> dict[str, Any]:
    """An inspection as plain data."""
    report = inspection.report
    return {
        "video": video,
        "ok": not inspection.problems,
        "problems": list(inspection.problems),
        "remarks": list(inspection.remarks),
        "frames": report.frames,
        "fps": str(report.fps),
        "size": list(report.size),
        "codec": report.codec,
        "video_start_s": float(report.video_start_s),
        "video_duration_s": float(report.video_duration_s),
        "timestamp_steps": {
            str(step): count for step, count in sorted(report.timestamp_steps.items())
        },
        "audio_codec": report.audio_codec,
        "audio_start_s": _seconds(report.audio_start_s),
        "audio_duration_s": _seconds(report.audio_duration_s),
        "colour": report.colour,
        "faststart": report.faststart,
        "distinct_share": _rounded(inspection.distinct_share),
        "motion_correlation": _rounded(inspection.motion_correlation),
        "gain_db": _rounded(inspection.gain_db),
        "render_id": (inspection.record or {}).get("render_id"),
    }


def inspection_text(video: str, inspection: "Inspection") -> str:
    """An inspection as a few lines."""
    report = inspection.report
    width, height = report.size
    steps = ", ".join(
        f"{count} of {step} frame" for step, count in sorted(report.timestamp_steps.items())
    )
    rows = [
        ("video", video),
        ("picture", f"{report.codec} {width}x{height} at {report.fps} fps"),
        ("frames", f"{report.frames}, {float(report.video_duration_s):.3f} s"),
        ("timestamps", f"from {float(report.video_start_s):.3f} s; steps: {steps or 'none'}"),
        ("sound", _sound(inspection)),
        ("colour", ", ".join(f"{name} {value}" for name, value in report.colour.items())),
        ("faststart", "yes" if report.faststart else "no"),
    ]
    if inspection.distinct_share is not None:
        rows.append(("distinct", f"{inspection.distinct_share:.1%} of the frames"))
    if inspection.motion_correlation is not None:
        rows.append(("motion", f"follows the latent path at {inspection.motion_correlation:.2f}"))
    if inspection.gain_db is not None:
        rows.append(("model", f"{inspection.gain_db:.1f} dB better than the mean image"))
    rows += [("remark", remark) for remark in inspection.remarks]
    rows += [("problem", problem) for problem in inspection.problems]
    rows.append(("verdict", "something is off" if inspection.problems else "as it should be"))
    return "\n".join(f"{name:<10}  {value}" for name, value in rows)


def _sound(inspection: "Inspection") -> str:
    report = inspection.report
    if report.audio_codec is None or report.audio_duration_s is None:
        return "none"
    start, length = float(report.audio_start_s or 0), float(report.audio_duration_s)
    return f"{report.audio_codec}, from {start:.3f} s, {length:.3f} s long"


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def bench_text(result: "BenchResult") -> str:
    """A measurement as a table; frames per second, with the spread of the pipeline's rounds."""
    heads = (
        "size",
        "setting",
        "decode",
        "convert",
        "encode",
        "pipeline",
        "spread",
        "bound",
        "of it",
        "by cost",
    )
    lines: list[tuple[str, ...]] = [heads]
    for row in result.rows:
        rates = (row.decode, row.convert, row.encode, row.pipeline)
        lines.append(
            (
                row.size,
                row.setting,
                *(f"{rate:.1f}" for rate in rates),
                f"{row.spread['pipeline']:.0%}",
                f"{row.bound:.1f}",
                f"{row.fraction:.0%}",
                f"{row.cost_fraction:.0%}",
            )
        )
    said = [
        f"{result.kind}, {result.cores} cores: {result.numerics}; {result.encoder}",
        *table(lines, num_words=2),
        "frames per second, medians; by cost: what decoding and encoding cost in CPU time, of what",
        f"the whole pipeline costs; at most {result.peak_bytes / 1e9:.2f} GB of memory in all",
    ]
    if result.rates_file:
        said.append(f"`asha-ray plan` reckons with {result.rates_file}")
    if result.tuned:
        said.append(f"renders on {result.kind} now follow {result.table}")
    return "\n".join(said)


def clean_document(result: "CleanResult") -> dict[str, Any]:
    """What a work root holds, as plain data."""
    return asdict(result)


def clean_text(result: "CleanResult") -> str:
    """What a work root holds as a table, its renders, and what became of what nobody needs."""
    lines: list[tuple[str, ...]] = [("", "needed", "", "not needed", "")]
    for kind, count in result.counts.items():
        needed = (str(count.needed), humane(count.needed_bytes))
        lines.append((kind, *needed, str(count.unneeded), humane(count.unneeded_bytes)))
    said = table(lines, num_words=1)
    for state in ("running", "finished", "unfinished", "unknown"):
        of_state = [
            f"  {render.render_id[:12]}  {'kept' if render.kept else 'goes'}  "
            f"{render.output or 'output unknown'}"
            + ("" if state in ("running", "finished") else f"\n      {render.reason}")
            for render in result.renders
            if render.state == state
        ]
        said += [f"{state}:", *_first(of_state, "renders")] if of_state else []
    if result.foreign:
        said += ["left alone, since asha-ray gives no such names:"]
        said += _first([f"  {uri}" for uri in result.foreign], "files")
    said += [f"kept: {why}" for why in result.kept]
    said.append(_sentence(result))
    return "\n".join(said)


def _sentence(result: "CleanResult") -> str:
    freed = humane(result.freed_bytes)
    if result.blocked:
        unknown = "what is needed cannot be known, so that only temporaries may go"
        return f"{unknown}: {freed} {'were freed' if result.deleted else 'would be freed'}"
    if result.deleted:
        return f"{freed} were freed"
    return f"nothing was touched: --delete would free {freed}"


def _first(lines: list[str], what: str) -> list[str]:
    more = len(lines) - MAX_SHOWN
    return lines if more <= 0 else [*lines[:MAX_SHOWN], f"  and {more} more {what}; see --json"]


def table(lines: list[tuple[str, ...]], num_words: int) -> list[str]:
    """Lines of cells in columns; the first columns are words, all others numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < num_words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def humane(num_bytes: int) -> str:
    """Bytes in three digits and a unit."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
