"""Stems on disk: what was written is what is read, and it is what was separated to 24 bits."""

import numpy as np
import pytest
import soundfile

from asha_ray.audio.stems.lossless import range_bits, read_stem, write_stems
from asha_ray.errors import StemsError
from tests.unit.audio.stems.sounds import snr_db, song


def kept(samples, path, bits, sample_rate=44_100):
    blocks = ({"drums": samples[at : at + 9_999]} for at in range(0, len(samples), 9_999))
    assert write_stems(blocks, {"drums": path}, sample_rate, bits) == len(samples)
    return np.concatenate(list(read_stem(path, bits)))


@pytest.mark.parametrize("level", [1e-3, 1.0, 3.9, 700.0])
def test_a_stem_comes_back_to_24_bits(tmp_path, level):
    samples = song(1.0) * np.float32(level / np.abs(song(1.0)).max())
    back = kept(samples, tmp_path / "s.flac", range_bits(samples))
    assert back.dtype == np.float32
    assert back.shape == samples.shape
    assert np.abs(back - samples).max() <= max(1, level) * 2.0**-21
    if level >= 1:
        assert snr_db(samples, back) > 100


def test_what_was_read_is_written_as_it_is(tmp_path):
    """A stem is rounded once; a second time would make features depend on who measured them."""
    first = kept(song(0.5), tmp_path / "a.flac", 2)
    again = kept(first, tmp_path / "b.flac", 2)
    np.testing.assert_array_equal(first, again)


def test_a_stem_louder_than_its_mix_has_room(tmp_path):
    mix = song(0.2)
    loud = mix * np.float32(3.5 / np.abs(mix).max())
    assert np.abs(kept(loud, tmp_path / "s.flac", range_bits(mix)) - loud).max() < 1e-6


@pytest.mark.parametrize(("peak", "bits"), [(0.0, 2), (1.0, 2), (1.01, 3), (4.0, 4), (9_000.0, 16)])
def test_the_range_holds_four_times_the_peak(peak, bits):
    mix = np.zeros((10, 2), np.float32)
    mix[3] = -peak
    assert range_bits(mix) == bits


def test_it_is_a_flac_file_that_others_read(tmp_path):
    kept(song(0.2), tmp_path / "s.flac", 2)
    info = soundfile.info(tmp_path / "s.flac")
    assert (info.format, info.subtype, info.samplerate, info.channels) == (
        "FLAC",
        "PCM_24",
        44100,
        2,
    )


def test_the_highest_rates_are_kept(tmp_path):
    samples = song(0.1, 768_000)
    assert len(kept(samples, tmp_path / "s.flac", 2, 768_000)) == len(samples)


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "s.flac"
    path.write_bytes(b"not a flac file")
    with pytest.raises(StemsError, match=r"s\.flac.*separate it again"):
        list(read_stem(path, 2))


def test_a_stem_of_a_thousand_channels_is_refused(tmp_path):
    """A block of it would be half a gigabyte."""
    path = tmp_path / "s.flac"
    soundfile.write(path, np.zeros((4, 1000), np.int16), 44_100, format="WAV")
    with pytest.raises(StemsError, match=r"no stereo FLAC file; separate it again"):
        next(read_stem(path, 2))
