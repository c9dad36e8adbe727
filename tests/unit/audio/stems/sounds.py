"""Streams of samples, whole stems, and how far two sounds are apart."""

from collections.abc import Iterable

import numpy as np

from asha_ray.values import PcmStream


def stream(samples: np.ndarray, sample_rate: int = 44_100, block: int = 10_007) -> PcmStream:
    """A sound `[n, c]` in blocks of an odd size."""
    blocks = (samples[first : first + block] for first in range(0, len(samples), block))
    return PcmStream(sample_rate, samples.shape[1], blocks)


def whole(blocks: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All blocks of all stems, joined; checks what every separator promises of its blocks."""
    blocks = list(blocks)
    for part in blocks:
        shapes = {samples.shape for samples in part.values()}
        assert len(shapes) == 1
        assert all(samples.dtype == np.float32 for samples in part.values())
    return {name: np.concatenate([part[name] for part in blocks]) for name in blocks[0]}


def snr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    """Signal to noise ratio of `actual`; infinite where nothing differs."""
    noise = np.sum(np.square(actual - expected, dtype=np.float64))
    signal = np.sum(np.square(expected, dtype=np.float64))
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def song(seconds: float, sample_rate: int = 44_100, seed: int = 0) -> np.ndarray:
    """Chords, strokes and hiss, different on both sides: `[n, 2]`."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(0.08 * np.sin(2 * np.pi * hertz * time_s) for hertz in (110, 277.2, 659.3))
    strokes = np.exp(-30 * (time_s % 0.4)) * rng.uniform(-0.4, 0.4, len(time_s))
    hiss = rng.normal(0, 0.01, (len(time_s), 2))
    sides = np.stack([chord + 0.6 * strokes, 0.7 * chord + strokes], axis=1)
    return (sides + hiss).astype(np.float32)
