"""CRC-32C (Castagnoli) of large arrays, in NumPy.

A CRC is linear over GF(2): followed by n zero bytes, the CRC of a message changes by a linear map
of its 32 bits. So the message is cut into rows of equal length, and whole rows are added up, each
moved on by one row; then the halves of the one row that is left, and so on. Every step works on
thousands of words at once, and a linear map of 32 bits is two look-ups of 16.

Source: RFC 3720, appendix B.4 (polynomial and test vectors); the masking is that of LevelDB's
table format, which TensorFlow's checkpoints use.
"""

import functools
from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL = 0x82F63B78
"""Castagnoli's, its bits reversed."""
ROW_BYTES = 1 << 16
MASK_DELTA = 0xA282EAD8

Words = NDArray[np.uint32]


def crc32c(data: bytes | memoryview | NDArray[np.uint8]) -> int:
    """CRC-32C of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    octets = np.frombuffer(data, np.uint8)
    if len(octets) < 4:
        return _register_after_bytes(0xFFFFFFFF, octets) ^ 0xFFFFFFFF
    row_bytes = min(ROW_BYTES, 1 << (len(octets) - 1).bit_length())
    # Zeros in front of a message change nothing in a register that starts from zero, and starting
    # from all ones is the same as flipping the message's first 32 bits.
    num_head = (len(octets) - 4) % row_bytes + 4
    head = np.zeros(2 * row_bytes, np.uint8)
    head[-num_head:] = octets[:num_head]
    head[-num_head:][:4] ^= 0xFF
    rows = [part.view("<u4").reshape(-1, row_bytes // 4) for part in (head, octets[num_head:])]
    return _register_after_rows(chain(*rows)) ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """A CRC in the form in which checkpoints store it."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def _register_after_rows(rows: Iterator[Words]) -> int:
    total = next(rows)
    low, high = _tables(4 * len(total))
    for row in rows:
        total = _apply(low, high, total)
        total ^= row
    while len(total) > 1:
        half = len(total) // 2
        total = _apply(*_tables(4 * half), total[:half]) ^ total[half:]
    # The last word stands in the register; its own four bytes have yet to pass through.
    return int(_apply(*_tables(4), total)[0])


def _apply(low: Words, high: Words, words: Words) -> Words:
    halves = words.view("<u2").reshape(-1, 2)
    result: Words = low.take(halves[:, 0])
    result ^= high.take(halves[:, 1])
    return result


def _register_after_bytes(register: int, octets: NDArray[np.uint8]) -> int:
    table = _byte_table()
    for octet in octets.tolist():
        register = table[(register ^ octet) & 0xFF] ^ (register >> 8)
    return register


@functools.cache
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


@functools.cache
def _tables(num_zero_bytes: int) -> tuple[Words, Words]:
    """Two tables of 65536: the register after `num_zero_bytes` for its low and high 16 bits."""
    columns = _columns(num_zero_bytes)
    tables = []
    for part in (columns[:16], columns[16:]):
        table = np.zeros(1, np.uint32)
        for column in part:
            table = np.concatenate([table, table ^ np.uint32(column)])
        tables.append(table)
    return tables[0], tables[1]


@functools.cache
def _columns(num_zero_bytes: int) -> tuple[int, ...]:
    """Images of the 32 single bits: a matrix, by squaring that of half as many bytes."""
    if num_zero_bytes == 1:
        zero = np.zeros(1, np.uint8)
        return tuple(_register_after_bytes(1 << bit, zero) for bit in range(32))
    half = _columns(num_zero_bytes // 2)
    return tuple(_image(half, column) for column in half)


def _image(columns: tuple[int, ...], register: int) -> int:
    result = 0
    for bit in range(32):
        if register >> bit & 1:
            result ^= columns[bit]
    return result
