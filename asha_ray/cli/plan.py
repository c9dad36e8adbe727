"""`plan`, and how it tells a person what a piece of work would take."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

import asha_ray
from asha_ray.cli import options
from asha_ray.cli.answer import answer
from asha_ray.cli.progress import clock
from asha_ray.cli.report import humane, table

if TYPE_CHECKING:
    from asha_ray.farm.tools.forecast import Forecast

WEEK_S = 7 * 24 * 3600.0


@options.taking(options.RENDER)
def plan(
    what: Annotated[
        str,
        typer.Argument(help="A sound file, a spec file (.yaml), or a folder of sound: an archive."),
    ],
    rates: Annotated[
        str | None,
        typer.Option(
            help="Rates, or what `bench --json` printed. [default: what bench measured here]"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames per second of one worker, instead of what was measured."),
    ] = None,
    gpu_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a GPU for an hour. [default: config.toml]"),
    ] = None,
    cpu_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Price of a CPU core for an hour. [default: config.toml]"),
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="Of the prices. [default: config.toml, or USD]")
    ] = None,
    as_json: options.Json = False,
    **given: Any,
) -> None:
    """What a render, a training or an archive would take; renders nothing.

    All options of render count. A worker is a GPU with the cores beside it, or a machine's cores.
    """
    named = {"gpu_hour": gpu_hour, "cpu_hour": cpu_hour, "currency": currency}
    prices = {name: value for name, value in named.items() if value is not None}
    forecast = asha_ray.plan(what, rates=rates, rate=rate, prices=prices, **given)
    answer(asdict(forecast), forecast_text(forecast), as_json=as_json)


def forecast_text(forecast: "Forecast") -> str:
    """A forecast as a table of what there is to do and what it takes, and what was assumed."""
    said = [f"{forecast.kind}  {forecast.what}"]
    rows = _training(forecast) if forecast.kind == "train" else _rendering(forecast)
    rows += _taking(forecast)
    said += [line.rstrip() for line in table(rows, num_words=3)]
    said += [f"note: {note}" for note in forecast.notes]
    return "\n".join(said)


def _training(forecast: "Forecast") -> list[tuple[str, ...]]:
    width, height = forecast.size
    return [
        ("images", _count(forecast.images), f"of {width}x{height}"),
        ("epochs", _count(forecast.epochs), f"{_count(forecast.steps)} steps"),
    ]


def _rendering(forecast: "Forecast") -> list[tuple[str, ...]]:
    width, height = forecast.size
    there = f"{forecast.reused_chunks} are there already"
    rows: list[tuple[str, ...]] = [
        ("sound", clock(forecast.duration_s), "kept features" if forecast.listened else ""),
        ("frames", _count(forecast.frames), f"{width}x{height} at {forecast.fps} fps"),
        ("chunks", _count(forecast.chunks), there if forecast.listened else ""),
        ("to render", _count(forecast.missing_frames), "frames"),
        (
            "writes",
            humane(forecast.segment_bytes + forecast.video_bytes),
            f"{humane(forecast.segment_bytes)} of segments, {humane(forecast.video_bytes)} of "
            "video",
        ),
    ]
    if forecast.kind == "archive":
        rows[0] = ("sound", clock(forecast.duration_s), f"in {humane(forecast.source_bytes)}")
        rows.insert(0, ("shows", _count(forecast.shows), ""))
    return rows


def _taking(forecast: "Forecast") -> list[tuple[str, ...]]:
    if forecast.seconds is None or forecast.frames_per_s is None:
        return [("workers", _count(forecast.workers), "")]
    longest = ", ".join(
        f"{name} {clock(seconds)}" for name, seconds in forecast.stages.items() if seconds >= 0.5
    )
    hours = forecast.gpu_hours or forecast.cpu_hours or 0.0
    rows: list[tuple[str, ...]] = [
        ("rate", f"{forecast.frames_per_s:.4g}/s", f"each worker; {forecast.rate_source}"),
        ("workers", _count(forecast.workers), ""),
        ("takes", _span(forecast.seconds), longest),
        ("holds", f"{hours:.3g} h", "of GPUs" if forecast.gpu_hours else "of CPU cores"),
    ]
    if forecast.cost is not None:
        rows.append(("costs", f"{forecast.cost:.2f}", forecast.currency))
    rows.append(("in a week", _count(forecast.workers_for_a_week or 0), "workers would do it"))
    return rows


def _span(seconds: float) -> str:
    return f"{seconds / WEEK_S:.1f} weeks" if seconds >= WEEK_S else clock(seconds)


def _count(number: int) -> str:
    return f"{number:,}"
