"""The files of a show in an archive's output, taken away again."""

from collections.abc import Collection

from asha_ray.farm.archive.naming import fold
from asha_ray.storage import join, storage_of
from asha_ray.storage.ledger import Ledger, ShowRecord

RECORD = ".mp4.json"


def remove_files(
    ledger: Ledger, output: str, record: ShowRecord, but: Collection[str] = ()
) -> None:
    """Delete what a show has put into an output, and let others have its name.

    Args:
        ledger: of the archive.
        output: of the archive.
        record: of the show, as it was.
        but: files that are its own still; where one has the name of another, but for letters' case,
            a disk may hold one file for both.

    Raises:
        StorageError: if one cannot be deleted.
    """
    kept = {fold(name) for name in but}
    gone = [name for name in record.files if fold(name) not in kept]
    # A video's record first: it would promise what is not there.
    for name in sorted(gone, key=lambda name: not name.endswith(RECORD)):
        storage_of(output).delete(join(output, name))
    if record.output and fold(record.output) not in kept:
        ledger.release_name(fold(record.output.removesuffix(".mp4")), record.show_id)
