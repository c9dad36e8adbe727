"""What `inspect` and `bench` print, for people and for programs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asha_ray.farm.bench import BenchResult
    from asha_ray.farm.inspect import Inspection


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
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    table = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    said = [
        f"{result.kind}, {result.cores} cores: {result.numerics}; {result.encoder}",
        *table,
        "frames per second, medians; by cost: what decoding and encoding cost in CPU time, of what",
        f"the whole pipeline costs; at most {result.peak_bytes / 1e9:.2f} GB of memory in all",
    ]
    if result.tuned:
        said.append(f"renders on {result.kind} now follow {result.table}")
    return "\n".join(said)
