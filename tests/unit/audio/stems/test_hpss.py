"""Harmonic and percussive stems: librosa's whole-file result, from blocks."""

import tracemalloc

import librosa
import numpy as np
import pytest

from asha_ray.audio.stems import hpss
from asha_ray.audio.stems.hpss import BLOCK_FRAMES, HOP_LENGTH, HpssSeparator
from asha_ray.audio.stems.separator import separate_range
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

BLOCK = BLOCK_FRAMES * HOP_LENGTH
SHORT_BLOCK_FRAMES = 40
SHORT_BLOCK = SHORT_BLOCK_FRAMES * HOP_LENGTH
"""Still more than twice what a median looks to each side: the same seams, sooner."""


def whole_file(samples: np.ndarray) -> dict[str, np.ndarray]:
    harmonic, percussive = librosa.effects.hpss(samples.T)
    return {"harmonic": harmonic.T, "percussive": percussive.T}


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(hpss, "BLOCK_FRAMES", SHORT_BLOCK_FRAMES)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(
    "length",
    [
        2048,
        9_000,
        SHORT_BLOCK - 1,
        SHORT_BLOCK,
        SHORT_BLOCK + 1,
        SHORT_BLOCK + 15 * HOP_LENGTH,
        2 * SHORT_BLOCK + 333,
        3 * SHORT_BLOCK + 20 * HOP_LENGTH,
    ],
)
def test_blocks_give_librosas_whole_file_result(length):
    """Without the overlap, medians would see an edge in every block: about 20 dB."""
    check_against_librosa(song(2)[:length])


def test_blocks_of_their_real_length():
    check_against_librosa(song(7)[: BLOCK + 40 * HOP_LENGTH + 333])


def check_against_librosa(samples: np.ndarray) -> None:
    expected, stems = whole_file(samples), whole(HpssSeparator().separate(stream(samples)))
    for name in expected:
        assert stems[name].shape == samples.shape
        assert snr_db(expected[name], stems[name]) > 110


@pytest.mark.parametrize("length", [1, 2, 511, 512, 1024, 1025, 1500])
def test_the_shortest_sounds_keep_their_length_and_sum(length):
    # librosa's inverse transform is wrong between 512 and 1025 samples: it reads past its buffer.
    samples = song(1)[:length]
    stems = whole(HpssSeparator().separate(stream(samples)))
    assert stems["harmonic"].shape == samples.shape
    assert snr_db(samples, stems["harmonic"] + stems["percussive"]) > 110


def test_silence_gives_silence_and_nothing_gives_nothing():
    stems = whole(HpssSeparator().separate(stream(np.zeros((5000, 2), np.float32))))
    assert not any(samples.any() for samples in stems.values())
    assert list(HpssSeparator().separate(PcmStream(44_100, 2, iter([])))) == []


def test_tones_and_strokes_come_apart():
    time_s = np.arange(6 * 44_100) / 44_100
    tone = np.tile(0.3 * np.sin(2 * np.pi * 440 * time_s)[:, None], 2).astype(np.float32)
    strokes = np.zeros_like(tone)
    strokes[11_025::22_050] = 0.9
    stems = whole(HpssSeparator().separate(stream(tone + strokes)))
    assert snr_db(tone, stems["harmonic"]) > 15
    # Where strokes cross the tone, the tone takes them.
    assert snr_db(strokes, stems["percussive"]) > 6


@pytest.fixture(scope="module")
def track():
    """A block of its real length and a bit, and its stems."""
    samples = song(8)
    return samples, whole(HpssSeparator().separate(stream(samples)))


@pytest.mark.parametrize(("start", "stop"), [(0, 50_000), (150_001, 300_000), (330_000, 400_000)])
def test_a_range_is_the_whole_tracks(track, start, stop):
    samples, expected = track
    ranged = whole(
        separate_range(HpssSeparator(), lambda at: stream(samples[at:]), 44_100, start, stop)
    )
    for name, part in ranged.items():
        assert snr_db(expected[name][start:stop], part) > 110


@pytest.mark.parametrize(("sample_rate", "num_channels"), [(8_000, 1), (96_000, 6)])
def test_any_rate_and_channels(sample_rate, num_channels):
    samples = np.repeat(song(1, sample_rate)[:, :1], num_channels, axis=1)
    stems = whole(HpssSeparator().separate(stream(samples, sample_rate)))
    assert stems["percussive"].shape == (sample_rate, 2)


@pytest.mark.usefixtures("short_blocks")
def test_memory_does_not_grow_with_length():
    """A show of three hours would be 3.8 GB."""

    def peak(num_blocks: int) -> int:
        block = song(1)[:SHORT_BLOCK]
        pcm = PcmStream(44_100, 2, (block for _ in range(num_blocks)))
        tracemalloc.start()
        for _ in HpssSeparator().separate(pcm):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)
    assert peak(8) < 1.2 * peak(3)
