"""The commands that give work to a cluster, and look after it there."""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

import asha_ray
from asha_ray.cli import options
from asha_ray.cli.answer import answer
from asha_ray.cli.job_report import job_document, job_line, job_text, jobs_table
from asha_ray.cli.progress import ConsoleProgress, shown

app = typer.Typer(
    help="Jobs on a cluster: how far they are, what they say, and how to end or repeat them.",
    no_args_is_help=True,
)

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The cluster's dashboard. [default: ASHA_ADDRESS, RAY_API_SERVER_ADDRESS, "
        "config.toml, http://127.0.0.1:8265]",
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        help="Holds the cluster's token. [default: ASHA_TOKEN_FILE, RAY_AUTH_TOKEN_PATH, "
        "config.toml, ~/.ray/auth_token]",
    ),
]
WorkRoot = Annotated[
    str | None,
    typer.Option("--work", help="Where jobs are kept, s3://… [default: ASHA_WORK, config.toml]"),
]
JobName = Annotated[
    str, typer.Argument(help="A job's id, a part of it that no other has, or last.")
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0, help="Stop, to be resumed, once its price passes this."),
]
Image = Annotated[
    bool | None,
    typer.Option("--image/--ship", help="The cluster has asha-ray; send no code. [default: ship]"),
]
SharedDisk = Annotated[
    bool | None,
    typer.Option(
        "--shared-disk/--own-disks",
        help="Local paths mean the same on all machines; send no files. [default: own-disks]",
    ),
]


def submit(
    spec: Annotated[
        str, typer.Argument(help="A spec file (YAML): a render, a training or an archive.")
    ],
    address: Address = None,
    token_file: TokenFile = None,
    work: WorkRoot = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="field=value or group.field=value; may be given again."),
    ] = None,
    max_cost: MaxCost = None,
    image: Image = None,
    shared_disk: SharedDisk = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what it says, until it ends.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Give a render, a training or an archive to a Ray cluster; prints the job's id."""
    progress = ConsoleProgress()
    job = asha_ray.submit(
        spec,
        fields=tuple(assignments or ()),
        max_cost=max_cost,
        progress=progress,
        address=address,
        token_file=token_file,
        work=work,
        image=image,
        shared_disk=shared_disk,
    )
    progress.finish()
    _submitted(job, follow=follow, token_file=token_file, as_json=as_json)


@app.command("list")
def list_jobs(
    work: WorkRoot = None,
    limit: Annotated[int, typer.Option(min=1, help="The latest so many.")] = 20,
    as_json: options.Json = False,
) -> None:
    """The latest jobs of a work root."""
    found = asha_ray.list_jobs(limit=limit, work=work)
    documents = [
        {"error": str(job)} if isinstance(job, Exception) else job_document(job) for job in found
    ]
    answer({"jobs": documents}, jobs_table(found), as_json=as_json)


@app.command()
def status(
    job: JobName,
    address: Address = None,
    token_file: TokenFile = None,
    work: WorkRoot = None,
    as_json: options.Json = False,
) -> None:
    """How far a job is; from storage, so also when its cluster is gone."""
    found = asha_ray.job_status(job, address=address, token_file=token_file, work=work)
    answer(job_document(found), job_text(found), as_json=as_json)


@app.command()
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends.")] = False,
    address: Address = None,
    token_file: TokenFile = None,
    work: WorkRoot = None,
    as_json: options.Json = False,
) -> None:
    """What a job has said; with --follow and --json, that on stderr and how it ended on stdout."""
    if follow:
        target = {"address": address, "token_file": token_file, "work": work}
        _follow(job, target, sys.stderr if as_json else sys.stdout, as_json=as_json)
        return
    lines = list(asha_ray.job_log(job, work=work))
    answer({"lines": lines}, "\n".join(lines), as_json=as_json)


@app.command()
def cancel(
    job: JobName,
    address: Address = None,
    token_file: TokenFile = None,
    work: WorkRoot = None,
    as_json: options.Json = False,
) -> None:
    """Let a job end: it frees what it holds within seconds, and keeps what is finished."""
    found = asha_ray.cancel_job(job, address=address, token_file=token_file, work=work)
    text = f"{found.job.job_id} is told to end; `asha-ray jobs retry` goes on from what is finished"
    if found.warning:
        sys.stderr.write(f"asha-ray: {shown(found.warning)}\n")
    answer({"job_id": found.job.job_id, "warning": found.warning}, text, as_json=as_json)


@app.command()
def retry(
    job: JobName,
    address: Address = None,
    token_file: TokenFile = None,
    work: WorkRoot = None,
    max_cost: MaxCost = None,
    image: Image = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what it says, until it ends.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Give a job that has ended to a cluster again, this one or another; nothing is done twice."""
    progress = ConsoleProgress()
    again = asha_ray.retry_job(
        job,
        max_cost=max_cost,
        progress=progress,
        address=address,
        token_file=token_file,
        work=work,
        image=image,
    )
    progress.finish()
    _submitted(again, follow=follow, token_file=token_file, as_json=as_json)


def schema(
    kind: Annotated[
        Literal["render", "train", "archive"] | None,
        typer.Argument(help="Of one kind of spec. [default: whichever a file says it is]"),
    ] = None,
) -> None:
    """Print the JSON Schema of spec files, for editors."""
    answer(asha_ray.schema(kind), "", as_json=True)


def drive(
    job: Annotated[str, typer.Argument()],
    work: Annotated[str, typer.Option("--work")],
    attempt: Annotated[int, typer.Option("--attempt")] = 1,
) -> None:
    """Do a job; this is what a cluster runs."""
    from asha_ray.farm.jobs.drive import drive as run

    _leave_folder()
    progress = ConsoleProgress()
    result = run(job, work, attempt, progress)
    progress.finish()
    answer(result, "", as_json=True)


def probe(
    name: Annotated[str, typer.Argument()],
    work: Annotated[str, typer.Option("--work")],
    seconds: Annotated[float, typer.Option("--seconds")],
) -> None:
    """Look around on a worker; this is what `doctor` has a cluster run."""
    from asha_ray.farm.tools.probe import probe as run

    _leave_folder()
    sys.stdout.write(f"{run(name, work, seconds)}\n")


def _leave_folder() -> None:
    """Go where no asha_ray is: workers look into their driver's folder before what is sent."""
    os.chdir("/")


def _submitted(job: Any, *, follow: bool, token_file: str | None, as_json: bool) -> None:
    document = {"job_id": job.job_id, "attempt": job.attempt, "work": job.work}
    if not follow:
        answer(document, job.job_id, as_json=as_json)
        return
    if not as_json:
        answer(document, job.job_id, as_json=False)
    target = {"address": job.address, "token_file": token_file, "work": job.work}
    _follow(job.job_id, target, sys.stderr, as_json=as_json)


def _follow(
    job: str, target: Mapping[str, str | None], stream: Any, *, as_json: bool = False
) -> None:
    """Show what a job says until it ends; exits as it did."""
    ended = None
    try:
        for said in asha_ray.follow_job(job, **target):
            if isinstance(said, str):
                stream.write(f"{shown(said)}\n")
                stream.flush()
            else:
                ended = said
    except KeyboardInterrupt:
        sys.stderr.write(f"asha-ray: {job} goes on; `asha-ray jobs cancel {job}` ends it\n")
        raise typer.Exit(130) from None
    if ended is None:
        return
    if as_json:
        answer(job_document(ended), "", as_json=True)
    else:
        sys.stderr.write(f"{shown(job_line(ended))}\n")
    if ended.state != "done":
        raise typer.Exit(1)
