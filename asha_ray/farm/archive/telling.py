"""What is written for people and for later runs: the catalogue, the page, and the index."""

import threading

from asha_ray.farm.archive.catalogue import CATALOGUE, publish_catalogue
from asha_ray.farm.archive.report import REPORT, publish_report
from asha_ray.storage import join, storage_of
from asha_ray.storage.ledger import Ledger, Records

_TELLING = threading.Lock()
"""Held by whoever tells: what was read later must not be written earlier."""


def tell(ledger: Ledger, output: str, known: Records | None = None) -> Records:
    """Write the catalogue and the page anew, then the index; returns the records.

    The index comes last: where it knows all records, the others do too.

    Args:
        ledger: of the archive.
        output: of the archive.
        known: records as they were read the last time.

    Raises:
        StorageError: if something cannot be read or written.
    """
    with _TELLING:
        while True:
            records = ledger.read_all(known)
            publish_catalogue(records.values(), output)
            publish_report(ledger, records.values(), output)
            ledger.write_index(records)
            known = ledger.read_all(records)
            if not any(_is_gone(known, show_id) for show_id in _changed(records, known)):
                return records


def _changed(before: Records, after: Records) -> list[str]:
    return [name for name, stored in after.stored.items() if before.stored.get(name) != stored]


def _is_gone(records: Records, show_id: str) -> bool:
    """Whether somebody has taken a show down: what was just written may tell of it."""
    return records[show_id].state == "forgotten"


def is_told(records: Records, output: str) -> bool:
    """Whether all that was read just now has been told."""
    files = [join(output, name) for name in (CATALOGUE, REPORT)]
    return not records.num_read and all(storage_of(file).size(file) is not None for file in files)
