"""Parts of a track: separated one by one they give the whole track's stems, sample for sample."""

from itertools import pairwise

import numpy as np
import pytest

from asha_ray.audio.stems import spleeter
from asha_ray.audio.stems.hpss import HpssSeparator
from asha_ray.audio.stems.parts import iter_parts, separate_part
from asha_ray.audio.stems.spleeter import HOP_LENGTH, SpleeterSeparator
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

SEGMENT = 64 * HOP_LENGTH


@pytest.fixture(scope="module")
def native(two_stems):
    """Spleeter with segments of a second and a half."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spleeter, "SEGMENT", SEGMENT)
        yield SpleeterSeparator("2stems", two_stems, "cpu")


def joined(separator, samples, sample_rate, part_s):
    parts = list(iter_parts(stream(samples, sample_rate), separator, part_s))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert parts[0].start == 0
    assert parts[-1].stop == len(samples)
    assert all(a.stop == b.start for a, b in pairwise(parts))
    stems = [whole(separate_part(separator, part)) for part in parts]
    return len(parts), {name: np.concatenate([part[name] for part in stems]) for name in stems[0]}


@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.7, 1.9])
def test_parts_of_hpss_are_the_whole_tracks(seconds):
    samples = song(seconds)
    expected = whole(HpssSeparator().separate(stream(samples)))
    num_parts, found = joined(HpssSeparator(), samples, 44_100, 0.5)
    assert num_parts == max(1, -(-len(samples) // 22_050))
    for name in expected:
        assert snr_db(expected[name], found[name]) > 120


@pytest.mark.parametrize(("seconds", "count"), [(1.0, 1), (3.5, 3)])
def test_parts_of_spleeter_are_the_whole_tracks(native, seconds, count):
    """To the last bit: a part begins with the segment that its own first one leans on."""
    samples = song(seconds)
    expected = whole(native.separate(stream(samples)))
    num_parts, found = joined(native, samples, 44_100, 1.0)
    assert num_parts == count
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name])


def test_parts_of_a_track_of_another_rate(native):
    """Its samples are resampled on both ways, each part's for itself."""
    samples = song(3.3, 48_000)
    expected = whole(native.separate(stream(samples, 48_000)))
    num_parts, found = joined(native, samples, 48_000, 1.0)
    assert num_parts > 1
    for name in expected:
        assert snr_db(expected[name], found[name]) > 90


def test_no_more_of_a_track_is_held_than_a_part_needs(native):
    num_read = 0

    def blocks():
        nonlocal num_read
        while True:
            num_read += 44_100
            yield np.zeros((44_100, 2), np.float32)

    parts = iter_parts(PcmStream(44_100, 2, blocks()), native, 3.0)
    for _ in range(20):
        part = next(parts)
        assert len(part.samples) < 3 * 44_100 + 4 * SEGMENT
    assert num_read < part.stop + 2 * SEGMENT + 2 * 44_100


def test_a_track_that_cannot_be_cut_is_one_part():
    class Whole(HpssSeparator):
        def cut_near(self, sample, sample_rate):
            return None

        def block_stop(self, stop, sample_rate):
            return None

    (part,) = iter_parts(stream(song(5.0)), Whole(), 1.0)
    assert (part.start, part.stop, len(part.samples)) == (0, 220_500, 220_500)


def test_five_channels_become_two():
    samples = np.repeat(song(1.0)[:, :1], 6, axis=1)
    (part,) = iter_parts(stream(samples), HpssSeparator(), 10.0)
    assert part.samples.shape == (44_100, 2)
