"""What people ask of an archive that is there: how far it is, to try again, to forget."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from asha_ray.errors import JobError, NotFoundError
from asha_ray.farm.archive import forget as takedown
from asha_ray.farm.archive.archive import ArchiveResult, archive
from asha_ray.farm.archive.forget import Forgotten, find_show
from asha_ray.farm.archive.report import write_report
from asha_ray.farm.archive.status import ArchiveStatus, status_of
from asha_ray.farm.places import absolute
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import ArchiveSpec, Prices, build
from asha_ray.storage.ledger import Ledger, Records


def read_status(output: str) -> ArchiveStatus:
    """How far an archive is.

    Raises:
        NotFoundError: if there is none.
    """
    output, ledger = _open(output)
    records = ledger.read_all().values()
    return status_of(output, records, ledger.runs(), ledger.read_plan(), datetime.now(UTC))


def report(output: str) -> str:
    """Write a page of an archive; returns where it is.

    Raises:
        NotFoundError: if there is none.
    """
    output, ledger = _open(output)
    return write_report(ledger, output)


def retry(
    output: str,
    shows: Sequence[str],
    progress: Progress | None = None,
    *,
    prices: Prices | None = None,
) -> ArchiveResult:
    """Try shows again, with the settings of the last run.

    Args:
        output: of the archive.
        shows: any that are not done; all that are parked where there are none.
        progress: hears how far it is.
        prices: what an hour costs.

    Raises:
        NotFoundError: if there is no archive.
        JobError: if there is no such show, it is done, or there is nothing to try again.
    """
    progress = progress or NullProgress()
    output, ledger = _open(output)
    records = ledger.read_all()
    ids = _to_retry(records, shows)
    if not ids:
        raise JobError(f"trying shows of {output} again: none is parked; see `archive status`")
    plain = ledger.read_spec() or {}
    # The archive may have been moved, and its output is this one, whatever its file says.
    plain = {**plain, "output": output, "limit": None}
    spec = build(ArchiveSpec, plain, f"reading {ledger.folder}/archive.json")
    return archive(spec, progress, prices=prices, only=ids)


def _to_retry(records: Records, shows: Sequence[str]) -> Collection[str]:
    if not shows:
        return {record.show_id for record in records.values() if record.state == "parked"}
    found = [find_show(records, show) for show in shows]
    for record in found:
        if record.state == "done":
            raise JobError(
                f"trying {record.key!r} again: it is done; `asha-ray archive` makes it anew by "
                "itself where its sound or its settings have changed, or its video is gone"
            )
    return {record.show_id for record in found}


def forget(
    output: str, show: str, *, dry_run: bool = False, progress: Progress | None = None
) -> Forgotten:
    """Take a show down.

    Raises:
        NotFoundError: if there is no archive.
        JobError: if there is no such show, or a run has it in hand.
    """
    output, ledger = _open(output)
    return takedown.forget(ledger, output, show, dry_run=dry_run, progress=progress)


def _open(output: str) -> tuple[str, Ledger]:
    output = absolute(output)
    ledger = Ledger(output)
    if ledger.read_plan() is None:
        raise NotFoundError(
            f"reading archive {output}: no archive was made there; give the folder that "
            "`asha-ray archive` was given as --out"
        )
    return output, ledger
