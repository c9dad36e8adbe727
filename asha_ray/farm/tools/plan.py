"""`plan` from its words to its forecast: which spec is meant, which rates and prices count."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asha_ray.config import read_config
from asha_ray.errors import SpecError
from asha_ray.farm.archive.todo import find_todo
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.tools.forecast import Forecast, Known, plan_training
from asha_ray.farm.tools.forecast_archive import BYTES_PER_S, plan_archive, suffix_of
from asha_ray.farm.tools.forecast_render import plan_render
from asha_ray.farm.tools.rates import rates_path, read_rates
from asha_ray.progress import NullProgress
from asha_ray.spec import (
    ARCHIVE_OPTIONS,
    RENDER_OPTIONS,
    ArchiveSpec,
    Prices,
    RenderSpec,
    TrainSpec,
    build,
    build_job,
    with_options,
)
from asha_ray.storage import storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.ledger import Ledger, ShowRecord

AnySpec = RenderSpec | TrainSpec | ArchiveSpec


def plan(
    spec: AnySpec,
    *,
    rates: str | None = None,
    rate: float | None = None,
    prices: Prices | Mapping[str, Any] | None = None,
) -> Forecast:
    """What a piece of work would take. Nothing is rendered, and nothing written.

    Args:
        spec: the work.
        rates: a file of rates; this user's own where None.
        rate: frames per second of one worker, instead of what was measured.
        prices: what an hour costs; a part of it is laid over what the configuration file says.

    Raises:
        SpecError: if there is no rate for it, or a file of rates is none.
        AshaError: another of its kinds.
    """
    if isinstance(spec, TrainSpec):
        return plan_training(spec)
    if rate is not None and not 0 < rate < float("inf"):
        raise SpecError(f"rate: more than 0 frames per second, not {rate:g}")
    known = Known(
        rates=read_rates(rates),
        source=rates or str(rates_path()),
        rate=rate,
        prices=prices if isinstance(prices, Prices) else _prices(prices or {}),
    )
    if isinstance(spec, RenderSpec):
        return plan_render(spec, known)
    return _plan_archive(spec, known)


def _prices(given: Mapping[str, Any]) -> Prices | None:
    own = read_config().prices
    if not given:
        return own
    return build(Prices, {**(own.model_dump() if own else {}), **given}, "prices")


def is_spec_file(uri: str) -> bool:
    """Whether a name is that of a spec file."""
    return uri.lower().endswith((".yaml", ".yml"))


def spec_of(what: str, data: Mapping[str, Any], given: Mapping[str, Any]) -> AnySpec:
    """The spec of what is to be planned, with options laid over it.

    Args:
        what: a spec file, a track, or a folder of tracks.
        data: what a spec file says, be it `what` or another.
        given: flat options; None were not given.

    Raises:
        SpecError: naming every wrong field, or an option that such work does not have.
    """
    options = {name: value for name, value in given.items() if value is not None}
    named = f"reading spec {what}" if is_spec_file(what) else "settings"
    if not is_spec_file(what):
        # Where it would go changes nothing but where earlier work is looked for.
        is_archive = _is_folder(what)
        data = {"output": what if is_archive else f"{what}.mp4"} | dict(data)
        data |= {"kind": "archive", "source": what} if is_archive else {"audio": what}
    if data.get("kind") == "archive":
        return build(ArchiveSpec, with_options(data, options, ARCHIVE_OPTIONS), named)
    if data.get("kind") == "train":
        if options:
            raise SpecError(f"plan {what}: a training takes no options; write them into its file")
        return build_job(data, named)
    return build_job(with_options(data, options, RENDER_OPTIONS), named)


def _is_folder(uri: str) -> bool:
    """Whether files lie below it; what is neither file nor folder counts as a track."""
    if not is_s3(uri):
        return Path(uri).is_dir()
    storage = storage_of(uri)
    return uri.endswith("/") or (storage.size(uri) is None and any(storage.list(uri)))


def _plan_archive(spec: ArchiveSpec, known: Known) -> Forecast:
    """What is to be done of an archive, by its ledger."""
    spec = absolute_paths(spec)
    agenda = find_todo(spec, Ledger(spec.output), NullProgress())
    if not agenda.num_shows:
        raise SpecError(
            f"plan {spec.source}: there are no sound files below it that its patterns let through; "
            "give the folder that holds some"
        )
    sizes = [(item.source.key, item.source.num_bytes) for item in agenda.todo]
    measured = _bytes_per_s(agenda.records.values())
    return plan_archive(
        spec,
        sizes,
        known,
        num_done=agenda.done,
        num_left_out=len(agenda.parked_ids) + agenda.skipped + agenda.forgotten,
        bytes_per_s={**BYTES_PER_S, **measured},
    )


def _bytes_per_s(records: Iterable[ShowRecord]) -> dict[str, float]:
    """What a second of sound took in shows that are done, by the suffix of their files."""
    sums: dict[str, tuple[int, float]] = {}
    for record in records:
        if record.state == "done" and record.duration_s > 0 and record.source_bytes:
            num_bytes, seconds = sums.get(suffix_of(record.key), (0, 0.0))
            sums[suffix_of(record.key)] = (
                num_bytes + record.source_bytes,
                seconds + record.duration_s,
            )
    return {suffix: num_bytes / seconds for suffix, (num_bytes, seconds) in sums.items()}
