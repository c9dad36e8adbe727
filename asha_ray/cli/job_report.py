"""What is said of jobs, to people and to programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from asha_ray.cli.progress import clock
from asha_ray.cli.report import table

if TYPE_CHECKING:
    from asha_ray.errors import JobError
    from asha_ray.farm.jobs.status import JobStatus


def job_document(job: "JobStatus") -> dict[str, Any]:
    """A job's status as plain data."""
    return asdict(job)


def job_text(job: "JobStatus") -> str:
    """A job's status as a few lines."""
    rows = [
        ("job", f"{job.job_id}  {job.kind}" + (f"  attempt {job.attempt}" * (job.attempt > 1))),
        ("state", job.state + (f": {job.reason}" if job.reason else "")),
        ("output", job.output),
        ("stage", _stage(job)),
        ("frames", _frames(job)),
        ("workers", "" if job.workers is None else str(job.workers)),
        ("retries", str(job.retries or "")),
        ("used", _used(job)),
        ("cost", _cost(job)),
        ("submitted", f"{job.submitted} to {job.address}"),
        ("heard of", "" if job.heard_s is None else f"{clock(job.heard_s)} ago"),
        ("render", job.render_id or ""),
    ]
    return "\n".join(f"{name:<10}  {value}" for name, value in rows if value)


def job_line(job: "JobStatus") -> str:
    """How a job ended, as one line."""
    parts = [f"{job.job_id} {'is ' * (job.state in ('done', 'lost'))}{job.state}"]
    parts += [job.reason or (job.output if job.state == "done" else "")]
    return ": ".join(part for part in parts if part)


def jobs_table(jobs: "Sequence[JobStatus | JobError]") -> str:
    """Jobs as a table, the latest first."""
    if not jobs:
        return "there are no jobs"
    lines: list[tuple[str, ...]] = [
        ("job", "kind", "state", "stage", "done", "left", "cost", "output")
    ]
    errors = []
    for job in jobs:
        if isinstance(job, Exception):
            errors.append(str(job))
            continue
        running = job.state == "running"
        lines.append(
            (
                job.job_id,
                job.kind,
                job.state,
                job.stage if running else "",
                _share(job),
                "" if job.left_s is None else clock(job.left_s),
                _price(job),
                job.output,
            )
        )
    return "\n".join([*(line.rstrip() for line in table(lines, num_words=8)), *errors])


def _stage(job: "JobStatus") -> str:
    if job.state != "running" or not job.stage:
        return ""
    parts = [job.stage]
    if job.total:
        parts.append(f"{job.done}/{job.total} {job.unit}")
    if job.rate:
        parts.append(f"{job.rate:.1f} {job.unit}/s")
    if job.left_s is not None:
        parts.append(f"{clock(job.left_s)} left")
    return "  ".join(parts)


def _frames(job: "JobStatus") -> str:
    if job.frames is None:
        return ""
    reused = f", {job.reused_chunks} of them reused" if job.reused_chunks else ""
    return (
        f"{job.frames_done or 0} of {job.frames}, in {job.chunks_done or 0} of {job.chunks} "
        f"chunks{reused}"
    )


def _share(job: "JobStatus") -> str:
    if job.state == "done":
        return "100%"
    done, total = (job.frames_done, job.frames) if job.frames is not None else (job.done, job.total)
    return f"{done / total:.0%}" if total and done is not None else ""


def _used(job: "JobStatus") -> str:
    used = [(job.gpu_hours, "GPU hours"), (job.cpu_hours, "CPU hours")]
    return ", ".join(f"{hours:.2f} {what}" for hours, what in used if hours)


def _cost(job: "JobStatus") -> str:
    limit = f" of at most {job.max_cost:g}" if job.max_cost is not None else ""
    return f"{_price(job)}{limit} so far" if job.cost is not None else ""


def _price(job: "JobStatus") -> str:
    return "" if job.cost is None else f"{job.cost:.2f} {job.currency}"
