"""Measured blocks on disk: nothing of a long show is held before it was heard to its end."""

import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pytest

from asha_ray.audio.blocks import iter_blocks, stream_of_clip
from asha_ray.audio.measure import BlockFeatures, measure_block
from asha_ray.audio.merge import merge_blocks
from asha_ray.errors import StorageError
from asha_ray.farm.listening import block_file
from asha_ray.farm.listening.block_file import BlockFile
from asha_ray.values import AudioClip

RATE = 30_720


@pytest.fixture(scope="module")
def blocks() -> list[BlockFeatures]:
    """Six seconds that grow louder by 90 dB: what is kept of each hangs on the last."""
    time_s = np.arange(6 * RATE + 1000) / RATE
    noise = np.random.default_rng(2).standard_normal(len(time_s)) * np.exp(-((time_s * 3) % 1) * 9)
    samples = (0.3 * noise * 10 ** (15 / 20 * (time_s - 6))).astype(np.float32)
    samples[7] = np.nan
    clip = AudioClip(samples, RATE)
    return [measure_block(block) for block in iter_blocks(stream_of_clip(clip), 60)]


def test_the_same_comes_back_to_the_last_bit(blocks):
    expected = merge_blocks(blocks, RATE)
    assert any(len(block.rise.now) for block in blocks), "there is something to decide"
    with BlockFile(RATE) as file:
        found = file.write(blocks[:3]).write(blocks[3:]).merged()
        again = file.merged()
    for field in fields(expected):
        value = getattr(expected, field.name)
        for other in (found, again):
            np.testing.assert_array_equal(getattr(other, field.name), value, strict=True)
    assert found.num_replaced == 1


def test_nothing_is_held_of_what_was_written(blocks):
    """Three hours of five sources would be half a gigabyte beside what separates them."""

    def held(num_blocks: int) -> int:
        tracemalloc.start()
        with BlockFile(RATE) as file:
            before = tracemalloc.get_traced_memory()[0]
            file.write(replace(blocks[0], flux=blocks[0].flux.copy()) for _ in range(num_blocks))
            result = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return result

    held(1)
    assert held(100) < held(10) + 1500


def test_a_full_disk_is_told(blocks, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(block_file.np, "save", fail)
    with BlockFile(RATE) as file, pytest.raises(StorageError, match=r"No space left.*free some"):
        file.write(blocks)
