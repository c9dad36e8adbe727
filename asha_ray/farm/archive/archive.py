"""An archive from its spec to its catalogue: what is to do is found out, done, and told."""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from asha_ray.errors import AshaError
from asha_ray.farm.archive.catalogue import CATALOGUE
from asha_ray.farm.archive.models import Models, models_of
from asha_ray.farm.archive.naming import check_patterns
from asha_ray.farm.archive.planner import Planner
from asha_ray.farm.archive.report import REPORT
from asha_ray.farm.archive.run import Run, Tally
from asha_ray.farm.archive.telling import is_told, tell
from asha_ray.farm.archive.todo import Agenda, find_todo
from asha_ray.farm.jobs.meter import Meter
from asha_ray.farm.places import absolute_paths
from asha_ray.farm.rendering.executor import executor_for
from asha_ray.farm.rendering.task import WorkerJob
from asha_ray.progress import NullProgress, Progress, SharedProgress, Stop
from asha_ray.scratch import sweep, system_folder
from asha_ray.spec import ArchiveSpec, Prices
from asha_ray.storage import join, storage_of
from asha_ray.storage.jobs import new_job_id
from asha_ray.storage.journal import Journal, now
from asha_ray.storage.ledger import Ledger
from asha_ray.storage.work import sweep_work
from asha_ray.video import codecs

MAX_REFUSED = 1000
"""Files that cannot be shows and are named in the plan; the rest is counted."""


@dataclass(frozen=True)
class ArchiveResult:
    """What a run through an archive did, and what there is now.

    Attributes:
        output: where the videos are.
        run: its name in the ledger.
        shows: that were found.
        todo: that this run set out to do.
        done: of these, those that are in their place now.
        skipped: of these, those that a rule leaves out.
        parked: shows that a person must look at, of this run or an earlier one.
        refused: files that cannot be shows, since no path may have such a name or they are empty.
        chunks: of the shows that this run has done.
        reused_chunks: of these, those that were there already.
        sound_s: seconds of sound of those.
        catalogue: where it is.
        report: where the page is.
        wall_s: seconds it took.
    """

    output: str
    run: str
    shows: int
    todo: int
    done: int
    skipped: int
    parked: int
    refused: int
    chunks: int
    reused_chunks: int
    sound_s: float
    catalogue: str
    report: str
    wall_s: float

    @property
    def is_whole(self) -> bool:
        """Whether every show has its video, or is left out on purpose."""
        return not self.parked and not self.refused and self.done + self.skipped >= self.todo

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "is_whole": self.is_whole}


def archive(
    spec: ArchiveSpec,
    progress: Progress | None = None,
    *,
    prices: Prices | None = None,
    only: Collection[str] = (),
) -> ArchiveResult:
    """Make a video of every show of an archive that has none yet.

    Args:
        spec: everything about it.
        progress: hears how far it is.
        prices: what an hour costs; None counts time alone.
        only: ids of shows; all where there are none.

    Raises:
        AshaError: what hinders all shows; one that fails by itself is parked instead.
    """
    progress = SharedProgress(progress or NullProgress())
    started = time.monotonic()
    asked = spec = absolute_paths(spec)
    if spec.run.work is None:
        run = spec.run.model_copy(update={"work": join(spec.output, ".asha")})
        spec = spec.model_copy(update={"run": run})
    check_patterns(spec)
    storage_of(spec.output).check_writable(join(spec.output, ".ledger", "archive.json"))
    ledger = Ledger(spec.output)
    agenda = find_todo(spec, ledger, progress, only)
    _tell(agenda, progress)
    ledger.write_spec(asked.model_dump(mode="json", exclude_defaults=True))
    ledger.write_plan(_plan_of(spec, agenda))
    name = new_job_id()
    tally = Tally(0)
    try:
        if agenda.todo:
            tally = _work(spec, ledger, agenda, name, progress, prices)
    except AshaError:
        with suppress(AshaError):  # what hindered the run may hinder this too
            tell(ledger, spec.output, agenda.records)
        raise
    if agenda.todo or not is_told(agenda.records, spec.output):
        progress.stage("telling")
        tell(ledger, spec.output, agenda.records)
    return ArchiveResult(
        output=spec.output,
        run=name,
        shows=agenda.num_shows,
        todo=len(agenda.todo),
        done=tally.done,
        skipped=tally.skipped,
        parked=len(agenda.parked_ids) + tally.parked,
        refused=len(agenda.refused),
        chunks=tally.chunks,
        reused_chunks=tally.reused_chunks,
        sound_s=round(tally.sound_s, 3),
        catalogue=join(spec.output, CATALOGUE),
        report=join(spec.output, REPORT),
        wall_s=round(time.monotonic() - started, 3),
    )


def _work(
    spec: ArchiveSpec,
    ledger: Ledger,
    agenda: Agenda,
    name: str,
    progress: Progress,
    prices: Prices | None,
) -> Tally:
    meter = Meter(prices)
    sweep(system_folder())
    sweep_work(str(spec.run.work))
    stop = Stop()
    with executor_for(spec.run.executor, spec.run) as executor:
        found = executor.survey(_codec(spec), progress)
        models = Models(found.kind, progress)
        planner = Planner(spec, ledger, executor, found, models, progress, stop)
        job = _first_job(spec, planner)
        takes = executor.warm_up(job)
        meter.hear({"worker": takes})
        progress.tell(worker=dict(takes))
        runs: list[Run] = []
        folder = ledger.run_folder(name)
        facts: dict[str, Any] = {"run": name, "output": spec.output, "source": spec.source}
        if prices is not None:
            facts["currency"] = prices.currency

        def look_on() -> None:
            for run in runs:
                run.look()

        with Journal(folder, "archive", look_on, **facts) as journal:
            run = Run(
                spec,
                ledger,
                list(agenda.todo),
                executor,
                planner,
                stop,
                journal,
                progress,
                meter,
            )
            runs.append(run)
            progress.stage("making shows", len(agenda.todo), "shows")
            try:
                run.work(job)
            except KeyboardInterrupt:
                progress.note(f"{run.tally.done} of {run.tally.shows} shows are made, and kept")
                raise
    return run.tally


def _first_job(spec: ArchiveSpec, planner: Planner) -> WorkerJob:
    """What workers load first, with room for the largest model that is named."""
    jobs = [planner.job(planner.general(model))[0] for model in models_of(spec)]
    return replace(jobs[0], memory_bytes=max(job.memory_bytes for job in jobs))


def _codec(spec: ArchiveSpec) -> str:
    """What workers' machines are asked about: all of a GPU's encoders where a show may want one."""
    named = {spec.video.codec, *(rule.video.get("codec") for rule in spec.rules)}
    return spec.video.codec if named.isdisjoint(codecs.NVENC) else "auto"


def _tell(agenda: Agenda, progress: Progress) -> None:
    parts = [f"{agenda.num_shows} shows, {len(agenda.todo)} to do"]
    if agenda.parked_ids:
        parts.append(f"{len(agenda.parked_ids)} parked (`asha-ray archive retry` tries them again)")
    if agenda.refused:
        parts.append(f"{len(agenda.refused)} files that cannot be shows")
    progress.note(", ".join(parts))
    for file, reason in agenda.refused[:3]:
        progress.note(f"{file!r} is left out: {reason}")


def _plan_of(spec: ArchiveSpec, agenda: Agenda) -> dict[str, Any]:
    return {
        "time": now(),
        "source": spec.source,
        "output": spec.output,
        "shows": agenda.num_shows,
        "bytes": agenda.num_bytes,
        "done": agenda.done,
        "todo": agenda.num_left,
        "todo_bytes": agenda.left_bytes,
        "refused": [list(item) for item in agenda.refused[:MAX_REFUSED]],
    }
