"""Harmonic and percussive stems: librosa's whole-file result, from blocks."""

import tracemalloc

import librosa
import numpy as np
import pytest

from asha_ray.audio.stems import hpss
from asha_ray.audio.stems.hpss import BLOCK_FRAMES, HOP_LENGTH, N_FFT, REACH, HpssSeparator
from asha_ray.audio.stems.separator import separate_range
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

BLOCK = BLOCK_FRAMES * HOP_LENGTH
SHORT_BLOCK_FRAMES = 32
SHORT_BLOCK = SHORT_BLOCK_FRAMES * HOP_LENGTH
"""Still more than twice what a median looks to each side: the same seams, sooner."""
SECOND_BLOCK = SHORT_BLOCK + REACH * HOP_LENGTH + N_FFT // 2
"""The first length of which there is a second block."""


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
        SHORT_BLOCK + 1,
        SECOND_BLOCK - 1,
        SECOND_BLOCK,
        2 * SHORT_BLOCK + 20 * HOP_LENGTH + 333,
    ],
)
def test_blocks_give_librosas_whole_file_result(length):
    """Without the overlap, medians would see an edge in every block: about 20 dB."""
    samples = song(1)[:length]
    check(whole_file(samples), whole(HpssSeparator().separate(stream(samples))))


def test_blocks_of_their_real_length(monkeypatch):
    """They give what short ones give, and so librosa's result, which takes it seconds."""
    samples = song(6.3)
    assert len(samples) > BLOCK + REACH * HOP_LENGTH + N_FFT // 2, "it has no second block"
    stems = whole(HpssSeparator().separate(stream(samples)))
    monkeypatch.setattr(hpss, "BLOCK_FRAMES", SHORT_BLOCK_FRAMES)
    check(whole(HpssSeparator().separate(stream(samples))), stems)


def check(expected: dict[str, np.ndarray], stems: dict[str, np.ndarray]) -> None:
    for name, sound in expected.items():
        assert stems[name].shape == sound.shape
        assert snr_db(sound, stems[name]) > 110


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
    time_s = np.arange(2 * 44_100) / 44_100
    tone = np.tile(0.3 * np.sin(2 * np.pi * 440 * time_s)[:, None], 2).astype(np.float32)
    strokes = np.zeros_like(tone)
    strokes[11_025::22_050] = 0.9
    stems = whole(HpssSeparator().separate(stream(tone + strokes)))
    # The tone itself begins and ends with a stroke.
    middle = slice(6_000, -6_000)
    assert snr_db(tone[middle], stems["harmonic"][middle]) > 15
    # Where strokes cross the tone, the tone takes them.
    assert snr_db(strokes[middle], stems["percussive"][middle]) > 6


@pytest.fixture(scope="module")
def track():
    """A sound of several short blocks, and its stems."""
    samples = song(1.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hpss, "BLOCK_FRAMES", SHORT_BLOCK_FRAMES)
        return samples, whole(HpssSeparator().separate(stream(samples)))


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(("start", "stop"), [(0, 10_000), (25_001, 55_000), (60_000, 79_380)])
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

    block = song(1)[:SHORT_BLOCK]

    def peak(num_blocks: int) -> int:
        pcm = PcmStream(44_100, 2, (block for _ in range(num_blocks)))
        tracemalloc.start()
        for _ in HpssSeparator().separate(pcm):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)
    assert peak(12) < 1.15 * peak(4)
