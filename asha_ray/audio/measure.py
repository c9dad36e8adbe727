"""What is measured in one block: everything from one short-time Fourier transform.

Shapes: m frames of the block, s its seconds (the track's last may be short), 128 mel bands, 1025
bins. The transform, mel bands, chroma, centroid and levels are librosa's (0.11), frame for frame,
computed together.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from asha_ray.audio.blocks import Block
from asha_ray.audio.grid import BAND_EDGES_HZ, HOP_LENGTH, N_FFT, SAMPLE_RATE
from asha_ray.audio.rise import NUM_MEL, Rise, measure_rise
from asha_ray.audio.texture import partials, steadiness, timbre
from asha_ray.values import FloatArray

NUM_CHROMA = 12
MIN_POWER = 1e-10

BATCH_FRAMES = 240
"""Frames transformed together: about what a core's cache holds."""


@dataclass(frozen=True)
class BlockFeatures:
    """What was measured in a block, small enough to send anywhere.

    Attributes:
        first_frame: number of the first frame in the track.
        rise: what onset strength is made of, once the loudest block is known.
        loudest_db: the highest mel level in the block.
        flux: `[m, 3]` mean increase of loudness in low, middle and high mel bands since the frame
            before.
        rms: `[m]` root mean square level.
        bands: `[m, 3]` root mean square magnitude of low, middle and high bins.
        chroma: `[m, 12]` pitch classes from C, each frame's maximum 1 or all 0.
        centroid: `[m]` Hz, 0 in silence.
        timbre: `[s, 20]` mel cepstrum of each second.
        steadiness: `[s, 2]` how steady each second's partials are, in -1..1.
        source_samples: see `Block`.
        num_replaced: see `Block`.
    """

    first_frame: int
    rise: Rise
    loudest_db: float
    flux: FloatArray
    rms: FloatArray
    bands: FloatArray
    chroma: FloatArray
    centroid: FloatArray
    timbre: FloatArray
    steadiness: FloatArray
    source_samples: int
    num_replaced: int


def prepare() -> None:
    """Compute what all blocks need, once, before they are measured in several threads."""
    _projections()
    _window()
    _mel_hz()


def measure_block(block: Block) -> BlockFeatures:
    """Measure one block; needs no other, so blocks may be measured anywhere and in any order."""
    parts = [
        _measure_batch(block.samples, start, min(start + BATCH_FRAMES, block.num_frames + 1))
        for start in range(0, block.num_frames + 1, BATCH_FRAMES)
    ]
    mel_db = np.concatenate([part.mel_db for part in parts])
    if block.first_frame == 0:
        # Before the first frame of the track is no frame that it could rise from.
        mel_db[0] = mel_db[1]
    now, before = mel_db[1:], mel_db[:-1]
    bands, chroma, centroid, fine = (
        np.concatenate([getattr(part, name) for part in parts])[1:]
        for name in ("bands", "chroma", "centroid", "fine")
    )
    return BlockFeatures(
        first_frame=block.first_frame,
        rise=measure_rise(now, before),
        loudest_db=float(now.max()),
        flux=_flux(now, before),
        rms=_rms(block),
        bands=bands,
        chroma=chroma,
        centroid=centroid,
        timbre=timbre(now),
        steadiness=steadiness(fine),
        source_samples=block.source_samples,
        num_replaced=block.num_replaced,
    )


def _flux(now: FloatArray, before: FloatArray) -> FloatArray:
    # The fourth root of power is close to loudness. In decibels, quiet onsets count as much as
    # loud ones, and the music under a mix's drums pulls the beats away.
    increase = np.maximum(_loudness(now) - _loudness(before), 0)
    parts = np.split(increase, np.searchsorted(_mel_hz(), BAND_EDGES_HZ), axis=1)
    return np.stack([part.mean(axis=1) for part in parts], axis=1)


def _loudness(mel_db: FloatArray) -> FloatArray:
    return np.asarray(10 ** (np.float32(0.025) * mel_db))


@dataclass(frozen=True)
class _Batch:
    mel_db: FloatArray
    bands: FloatArray
    chroma: FloatArray
    centroid: FloatArray
    fine: FloatArray


def _measure_batch(samples: FloatArray, start: int, stop: int) -> _Batch:
    """Frames `start` to `stop` of a block, counted from the context frame before its first."""
    power = _power(samples[start * HOP_LENGTH : (stop - 1) * HOP_LENGTH + N_FFT])
    projected = np.asarray(_projections() @ np.ascontiguousarray(power.T)).T
    magnitude = np.sqrt(power)
    total = magnitude.sum(axis=1)
    weighted = np.einsum("mb,b->m", magnitude, _bin_hz())
    loud = total > np.finfo(np.float32).tiny
    mel_power, band_power, chroma = np.split(projected, [NUM_MEL, NUM_MEL + 3], axis=1)
    return _Batch(
        mel_db=10 * np.log10(np.maximum(mel_power, np.float32(MIN_POWER))),
        bands=np.sqrt(band_power),
        chroma=_to_unit_rows(chroma),
        centroid=np.divide(weighted, total, out=np.zeros_like(total), where=loud),
        fine=partials(power),
    )


def _power(samples: FloatArray) -> FloatArray:
    """Power spectra `[frames, 1025]` of frames that begin every hop.

    In double precision, like librosa's: single precision is off by 0.03 dB in bins 80 dB below a
    frame's loudest.
    """
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_LENGTH]
    spectrum = fft.rfft(frames * _window(), axis=1, overwrite_x=True).astype(np.complex64)
    return np.asarray(np.square(spectrum.real) + np.square(spectrum.imag))


def _rms(block: Block) -> FloatArray:
    squares = np.square(block.samples.reshape(-1, HOP_LENGTH), dtype=np.float64).sum(axis=1)
    sums = np.convolve(squares, np.ones(N_FFT // HOP_LENGTH), "valid")[1:]
    return np.asarray(np.sqrt(sums / N_FFT), np.float32)


def _to_unit_rows(rows: FloatArray) -> FloatArray:
    maxima = rows.max(axis=1, keepdims=True)
    loud = maxima > np.finfo(np.float32).tiny
    return np.asarray(np.divide(rows, maxima, out=np.zeros_like(rows), where=loud))


@functools.cache
def _window() -> NDArray[np.float64]:
    from librosa.filters import get_window

    return np.asarray(get_window("hann", N_FFT))


@functools.cache
def _bin_hz() -> FloatArray:
    from librosa import fft_frequencies

    return np.asarray(fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT), np.float32)


@functools.cache
def _mel_hz() -> FloatArray:
    from librosa import mel_frequencies

    return np.asarray(mel_frequencies(NUM_MEL + 2, fmax=SAMPLE_RATE / 2)[1:-1], np.float32)


@functools.cache
def _projections() -> sparse.csr_array:
    """Weights `[128 + 3 + 12, 1025]` of power in mel bands, in low, middle and high, in chroma.

    Sparse, because a product with it keeps to the calling thread and adds in one order. BLAS would
    start threads in every thread here, which took as long again, and sums that differ with them.
    """
    from librosa.filters import chroma as chroma_filters
    from librosa.filters import mel as mel_filters

    mel = mel_filters(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=NUM_MEL, fmax=SAMPLE_RATE / 2)
    band_of_bin = np.searchsorted(BAND_EDGES_HZ, _bin_hz(), side="right")
    members = np.arange(3)[:, None] == band_of_bin
    bands = members / members.sum(axis=1, keepdims=True)
    chroma = chroma_filters(sr=SAMPLE_RATE, n_fft=N_FFT, tuning=0.0, n_chroma=NUM_CHROMA)
    return sparse.csr_array(np.concatenate([mel, bands, chroma]).astype(np.float32))
