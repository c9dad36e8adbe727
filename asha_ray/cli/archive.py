"""The commands for whole archives: make their videos, and look after what there is."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import asha_ray
from asha_ray.cli import options
from asha_ray.cli.answer import answer
from asha_ray.cli.archive_report import (
    archive_document,
    archive_text,
    forgotten_document,
    forgotten_text,
)
from asha_ray.cli.progress import ConsoleProgress, shown

if TYPE_CHECKING:
    from asha_ray.farm.archive.archive import ArchiveResult

RUN = "run"


class _WithSource(TyperGroup):
    """A group whose first word may be an archive instead of a command: `archive SRC --out DST`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command that is meant."""
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = [RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WithSource,
    help="Make a video of every show of an archive: `asha-ray archive SOURCE --out FOLDER --model "
    "MODEL`; `asha-ray archive run --help` lists its options. What is there is kept, what fails is "
    "parked with its reason, and the same command goes on.",
    no_args_is_help=True,
)

Output = Annotated[str, typer.Argument(help="The archive's output, as it was given with --out.")]
ShowName = Annotated[
    str,
    typer.Argument(help="A show's path, its video's, its id, or a part that no other has."),
]


@app.command(RUN, hidden=True)
@options.taking(options.ARCHIVE)
def run(
    source: Annotated[
        str | None, typer.Argument(help="A folder or prefix with sound files.")
    ] = None,
    as_json: options.Json = False,
    **given: Any,
) -> None:
    """Make a video of every show that has none; exits with 1 where some could not be made."""
    given |= {name: given[name] or None for name in ("include", "exclude", "paths")}
    progress = ConsoleProgress()
    result = asha_ray.archive(source, progress=progress, **given)
    progress.finish()
    _answer_result(result, as_json=as_json)


@app.command()
def status(output: Output, as_json: options.Json = False) -> None:
    """How far an archive is, and what needs a person; from storage, so also when nobody works."""
    found = asha_ray.archive_status(output)
    answer(archive_document(found), archive_text(found), as_json=as_json)


@app.command()
def report(output: Output, as_json: options.Json = False) -> None:
    """Write a page of an archive: how far it is, what needs a person, and pictures of its shows."""
    page = asha_ray.archive_report(output)
    answer({"report": page}, page, as_json=as_json)


@app.command()
def retry(
    output: Output,
    shows: Annotated[
        list[str] | None,
        typer.Argument(help="Paths, ids or parts of them. [default: all that are parked]"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Try parked shows again, and forgotten ones that are named, as the archive was run last."""
    progress = ConsoleProgress()
    result = asha_ray.archive_retry(output, shows or (), progress=progress)
    progress.finish()
    _answer_result(result, as_json=as_json)


@app.command()
def forget(
    output: Output,
    show: ShowName,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Take a show down: its video, all that was made for it, and what is known of it, for good."""
    progress = ConsoleProgress()
    found = asha_ray.archive_forget(output, show, dry_run=dry_run, progress=progress)
    progress.finish()
    answer(forgotten_document(found), forgotten_text(found), as_json=as_json)


def _answer_result(result: "ArchiveResult", *, as_json: bool) -> None:
    parts = [f"{result.output}: {result.done} of {result.todo} shows made"]
    if result.skipped:
        parts.append(f"{result.skipped} left out by rules")
    if result.parked:
        parts.append(f"{result.parked} parked: see `asha-ray archive status {result.output}`")
    if result.refused:
        parts.append(f"{result.refused} files are no shows")
    answer(result.document(), ", ".join(parts), as_json=as_json)
    if not result.is_whole:
        sys.stderr.write(f"asha-ray: {shown('some shows have no video; see ' + result.report)}\n")
        raise typer.Exit(1)
