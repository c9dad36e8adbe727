"""TensorFlow checkpoints (tensor bundles, "V2") without TensorFlow.

`model.index` is a LevelDB table (SSTable): a footer that points to an index block, which points to
data blocks, whose entries map a variable's name to a `BundleEntryProto`: type, shape, and where in
`model.data-00000-of-00001` the values lie as plain little-endian numbers.

Sources: LevelDB's doc/table_format.md; TensorFlow's tensor_bundle.proto, tensor_shape.proto and
util/tensor_bundle.

A checkpoint may come from anywhere: every offset and size is checked against the file before it is
used, nothing is allocated because a header asks for it, and what is read is checked against its
CRC-32C: of the index every block, of the data every variable that is read.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asha_ray.audio.stems.crc32c import crc32c, mask
from asha_ray.errors import StemsError

TABLE_MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
BLOCK_TRAILER_BYTES = 5
MAX_INDEX_BYTES = 1 << 20
"""The published models' have 13 kB at most."""
MAX_KEY_BYTES = 1024
MAX_DATA_BYTES = 4 << 30
MAX_VARIABLE_BYTES = 64 << 20
"""The published models' largest have 26 MB."""
MAX_DIMENSIONS = 8
SNAPPY = 1
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}
"""TensorFlow's DataType -> NumPy's; a U-Net has no others."""

ProtoValue = int | bytes


@dataclass(frozen=True)
class Entry:
    """Where a variable lies: a `BundleEntryProto`.

    Attributes:
        dtype: TensorFlow's number for its type.
        shape: its dimensions.
        offset: of its first byte in the data file.
        num_bytes: that it takes there.
        crc: masked CRC-32C of those bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    offset: int
    num_bytes: int
    crc: int


class Checkpoint:
    """The variables of a checkpoint, read when asked for.

    Args:
        folder: holds `<prefix>.index` and `<prefix>.data-00000-of-00001`.
        prefix: the checkpoint's name.

    Attributes:
        entries: variable name -> where it lies.
        digest: sha256 of the index, which holds the CRC of every variable.

    Raises:
        StemsError: if it cannot be read or is damaged.
    """

    def __init__(self, folder: Path, prefix: str = "model") -> None:
        self._index_path = folder / f"{prefix}.index"
        self._data_path = folder / f"{prefix}.data-00000-of-00001"
        try:
            index = _read_bounded(self._index_path, MAX_INDEX_BYTES)
            self._num_data_bytes = self._data_path.stat().st_size
        except OSError as error:
            raise _damaged(
                Path(error.filename or folder), error.strerror or "unreadable"
            ) from error
        self.digest = hashlib.sha256(index).hexdigest()
        try:
            self.entries = self._entries(index)
        except (IndexError, ValueError) as error:
            raise _damaged(self._index_path, str(error)) from error

    def read(self, name: str) -> NDArray[np.generic]:
        """A variable's values, checked against its CRC; a read-only view of the file.

        Raises:
            StemsError: if there is no such variable, or its bytes are not those that were written.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise _damaged(self._index_path, f"there is no variable {name}")
        try:
            # A memory map: a file that was cut short meanwhile is an error here, too.
            octets = np.memmap(
                self._data_path, np.uint8, "r", offset=entry.offset, shape=(entry.num_bytes,)
            )
        except (OSError, ValueError) as error:
            raise _damaged(self._data_path, str(error)) from error
        if mask(crc32c(octets)) != entry.crc:
            raise _damaged(self._data_path, f"the checksum of {name} is wrong")
        return octets.view(DTYPES[entry.dtype]).reshape(entry.shape)

    def _entries(self, index: bytes) -> dict[str, Entry]:
        entries = {}
        for key, value in _table(index):
            if not key:
                _check_header(value)
                continue
            entry = _entry(value)
            if entry.offset + entry.num_bytes > self._num_data_bytes:
                raise _damaged(self._data_path, "it is shorter than its index says")
            entries[key.decode()] = entry
        return entries


def _damaged(path: Path, reason: str) -> StemsError:
    return StemsError(f"reading the model {path}: it is damaged ({reason})")


def _read_bounded(path: Path, limit: int) -> bytes:
    if path.stat().st_size > limit:
        raise _damaged(path, f"more than {limit >> 20} MiB cannot be an index")
    return path.read_bytes()


# ---- LevelDB's table ----


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table, in order."""
    footer = data[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != TABLE_MAGIC:
        raise ValueError("it does not end like a checkpoint's index")
    list(_block(data, footer))  # the meta index, unused; if it is damaged, so is the file
    position = 0
    for _ in range(2):
        _, position = _varint(footer, position)
    end = 0
    for _, handle in _block(data, footer[position:]):
        start, position = _varint(handle, 0)
        if start < end:
            raise ValueError("its blocks overlap")
        end = start + _varint(handle, position)[0]
        yield from _block(data, handle)


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    start, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    end = start + size
    if end + BLOCK_TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise ValueError("a block lies outside the file")
    stored_crc = int.from_bytes(data[end + 1 : end + BLOCK_TRAILER_BYTES], "little")
    if mask(crc32c(data[start : end + 1])) != stored_crc:
        raise ValueError("the checksum of a block is wrong")
    if data[end]:
        kind = "snappy" if data[end] == SNAPPY else f"method {data[end]}"
        raise ValueError(f"its index is compressed ({kind}); TensorFlow writes it plainly")
    yield from _block_entries(data[start:end])


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * num_restarts
    if end < 0:
        raise ValueError("a block is too short")
    position, key = 0, b""
    while position < end:
        num_shared, position = _varint(block, position)
        num_unshared, position = _varint(block, position)
        num_value, position = _varint(block, position)
        if num_shared > len(key) or position + num_unshared + num_value > end:
            raise ValueError("a block's entry lies outside it")
        if num_shared + num_unshared > MAX_KEY_BYTES:
            raise ValueError("a variable's name is too long")
        key = key[:num_shared] + block[position : position + num_unshared]
        position += num_unshared
        yield key, block[position : position + num_value]
        position += num_value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        octet = data[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
    raise ValueError("a number is too long")


# ---- Protocol buffers ----


def _fields(message: bytes) -> Iterator[tuple[int, ProtoValue]]:
    """Field numbers and values of a message: varints and fixed numbers as int, others as bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire_type == 2:
            size, position = _varint(message, position)
        elif wire_type in {1, 5}:
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"a message has a field of unknown kind {wire_type}")
        part = message[position : position + size]
        if len(part) != size:
            raise ValueError("a message ends within a field")
        position += size
        yield field, part if wire_type == 2 else int.from_bytes(part, "little")


def _check_header(message: bytes) -> None:
    header = dict(_fields(message))
    if header.get(1, 1) != 1:
        raise ValueError(f"it has {header[1]!r} data files; one is read here")
    if header.get(2, 0) != 0:
        raise ValueError("its numbers are big-endian")


def _entry(message: bytes) -> Entry:
    fields = dict(_fields(message))
    if 7 in fields:
        raise ValueError("a variable is stored in slices")
    shape = _shape(_bytes(fields.get(2, b"")))
    dtype, offset, num_bytes, crc = (_int(fields.get(field, 0)) for field in (1, 4, 5, 6))
    if dtype not in DTYPES:
        raise ValueError(f"a variable has the type {dtype}, which no U-Net has")
    if _int(fields.get(3, 0)) != 0:
        raise ValueError("a variable lies in another data file")
    if offset > MAX_DATA_BYTES or num_bytes > MAX_VARIABLE_BYTES:
        raise ValueError("a variable is beyond all size")
    if prod(shape) * np.dtype(DTYPES[dtype]).itemsize != num_bytes:
        raise ValueError("a variable's shape and size disagree")
    return Entry(dtype, shape, offset, num_bytes, crc)


def _shape(message: bytes) -> tuple[int, ...]:
    dimensions = [_bytes(value) for field, value in _fields(message) if field == 2]
    if len(dimensions) > MAX_DIMENSIONS:
        raise ValueError("a variable has too many dimensions")
    return tuple(_int(dict(_fields(dimension)).get(1, 0)) for dimension in dimensions)


def _int(value: ProtoValue) -> int:
    if not isinstance(value, int):
        raise ValueError("a message has text where a number should be")
    return value


def _bytes(value: ProtoValue) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a message has a number where a message should be")
    return value
