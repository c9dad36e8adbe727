"""The ledger's index: the records of all shows in one file, since a bucket gives few a second.

Parquet with the columns `show_id`, `version` (of the record's own file, as a list of files tells
it) and `record` (that file's content). It is derived: what is wrong with it makes it count for
nothing, and the records are read one by one.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from asha_ray.errors import NotFoundError
from asha_ray.scratch import scratch_folder
from asha_ray.storage.base import storage_of

VERSION = b"1"
VERSION_KEY = b"asha-ray"
COLUMNS = {"show_id": "string", "version": "string", "record": "binary"}
ROWS_AT_ONCE = 5000
MAX_BYTES = 2 << 30
"""Of an index, packed and unpacked: more than a million records."""
PLAIN_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED"}
"""Of any other a few bytes might unpack to more than a file says."""


class Stored(NamedTuple):
    """A record as it is stored.

    Attributes:
        version: of its file, as `Entry.version`.
        content: of its file.
    """

    version: str
    content: bytes


def write_index(uri: str, records: Mapping[str, Stored]) -> None:
    """Store records by their shows' ids in one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with scratch_folder("index") as folder:
        path = folder / "index.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
            rows = iter(records.items())
            while some := list(islice(rows, ROWS_AT_ONCE)):
                columns = zip(*((show_id, *stored) for show_id, stored in some), strict=True)
                writer.write_table(pa.table([list(column) for column in columns], schema=schema))
        storage_of(uri).upload(path, uri)


def read_index(uri: str) -> dict[str, Stored]:
    """The records of an index by their shows' ids; nothing where it is none, or none of ours."""
    import pyarrow as pa

    storage = storage_of(uri)
    if not 0 < (storage.size(uri) or 0) <= MAX_BYTES:
        return {}
    with (
        suppress(NotFoundError, pa.ArrowException, OSError, ValueError),
        storage.local_copy(uri) as path,
    ):
        return dict(_rows(path))
    return {}


def _schema() -> Any:
    import pyarrow as pa

    fields = [pa.field(name, pa.type_for_alias(kind), False) for name, kind in COLUMNS.items()]
    return pa.schema(fields, metadata={VERSION_KEY: VERSION})


def _rows(path: Path) -> Iterator[tuple[str, Stored]]:
    import pyarrow.parquet as pq

    # Memory that is mapped or read ahead would be held for the whole file.
    with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
        _check(file)
        for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
            columns = [batch.column(name).to_pylist() for name in COLUMNS]
            for show_id, version, content in zip(*columns, strict=True):
                yield show_id, Stored(version, content)


def _check(file: Any) -> None:
    """Make sure that a file is an index, and unpacks to no more than it should."""
    if not file.schema_arrow.equals(_schema(), check_metadata=True):
        raise ValueError("another asha-ray wrote it")
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > MAX_BYTES:
        raise ValueError("it unpacks to too much")
    for group in groups:
        for index in range(group.num_columns):
            if not PLAIN_ENCODINGS.issuperset(group.column(index).encodings):
                raise ValueError("it is packed otherwise than an index is")
