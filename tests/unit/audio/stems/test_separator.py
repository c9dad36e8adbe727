"""Choosing a separator, and separating a part of a track."""

import numpy as np
import pytest

from asha_ray.audio.stems.separator import SEPARATORS, make_separator, separate_range
from asha_ray.errors import StemsError
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import song, stream, whole


class Doubler:
    """A separator that knows only multiples of 100 and is wrong in the first 50 samples."""

    name, stems, version, sample_rate = "doubler", ("double",), "1", None

    def separate(self, pcm, first_sample=0):
        position = first_sample
        assert position % 100 == 0
        for block in pcm.blocks:
            double = 2 * block
            if position == first_sample and first_sample:
                double[:50] = 99
            position += len(block)
            yield {"double": double}

    def block_start(self, start, sample_rate):
        return max(0, start - 50) // 100 * 100


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 10), (0, 5000), (149, 151), (1050, 2000), (4990, 9000)]
)
def test_a_range_is_cut_out_of_the_whole(start, stop):
    samples = song(1)[:5000]
    ranged = separate_range(
        Doubler(), lambda at: stream(samples[at:], block=333), 44_100, start, stop
    )
    np.testing.assert_array_equal(whole(ranged)["double"], 2 * samples[start:stop])


def test_a_range_reads_no_more_than_it_needs():
    """Tasks side by side that each read to the end would read a long show many times over."""
    samples, num_read = song(5), 0

    def open_at(at):
        def blocks():
            nonlocal num_read
            for first in range(at, len(samples), 1000):
                num_read += 1000
                yield samples[first : first + 1000]

        return PcmStream(44_100, 2, blocks())

    list(separate_range(Doubler(), open_at, 44_100, 10_000, 12_000))
    assert num_read <= 4000


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(StemsError, match=r"demucs.*spleeter-tf.*hpss"):
        make_separator("demucs")


def test_the_registry_is_what_is_documented():
    assert list(SEPARATORS) == ["spleeter", "spleeter-tf", "hpss"]
    hpss = make_separator("hpss")
    assert (hpss.name, hpss.stems) == ("hpss", ("harmonic", "percussive"))
