"""The checksum that tells a damaged model from a good one."""

import numpy as np
import pytest

from asha_ray.audio.stems import crc32c as module
from asha_ray.audio.stems.crc32c import POLYNOMIAL, ROW_BYTES, crc32c, mask

VECTORS = {
    "check value": (b"123456789", 0xE3069283),
    "zeros": (bytes(32), 0x8A9136AA),
    "ones": (b"\xff" * 32, 0x62A8AB43),
    "ascending": (bytes(range(32)), 0x46DD794E),
    "descending": (bytes(range(31, -1, -1)), 0x113FDB5C),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize(("data", "expected"), VECTORS.values(), ids=VECTORS)
def test_the_rfcs_vectors(data, expected):
    assert crc32c(data) == expected


def bit_by_bit(data: bytes) -> list[int]:
    """The sum of the first 0, 1, 2, ... bytes."""
    register, found = 0xFFFFFFFF, [0]
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
        found.append(register ^ 0xFFFFFFFF)
    return found


def test_every_short_length_in_small_rows(monkeypatch):
    """Lengths around whole rows take different paths; an error there condemns good models."""
    monkeypatch.setattr(module, "ROW_BYTES", 16)
    data = np.random.default_rng(0).bytes(70)
    for length, expected in enumerate(bit_by_bit(data)):
        assert crc32c(data[:length]) == expected, f"{length} bytes"


def test_rows_of_full_size():
    data = np.random.default_rng(1).bytes(2 * ROW_BYTES + 5)
    expected = bit_by_bit(data)
    for extra in (-1, 0, 1, 3, 4, 5):
        length = 2 * ROW_BYTES + extra
        assert crc32c(data[:length]) == expected[length], f"two rows and {extra} bytes"


def test_masking_is_leveldbs():
    """LevelDB's own test: a masked CRC is another number, and not its own mask."""
    crc = crc32c(b"foo")
    assert mask(crc) not in {crc, mask(mask(crc))}
    unrotated = (mask(crc) - 0xA282EAD8) & 0xFFFFFFFF
    assert ((unrotated >> 17) | (unrotated << 15)) & 0xFFFFFFFF == crc
