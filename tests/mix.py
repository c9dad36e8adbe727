"""A DJ's mix whose every beat is known: drum patterns of a moving tempo over a bed of music.

The bed is made on the spot, or read from files (real music with beats of its own, which the drums
must drown as a DJ's do).
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asha_ray.values import PcmStream

Samples = NDArray[np.float32]
Bed = Callable[[int, int], Samples]

SAMPLE_RATE = 44_100

# What each drum plays in a bar of four beats, in eighths of a beat's half: (position, strength).
PATTERNS: list[dict[str, list[tuple[float, float]]]] = [
    {  # four on the floor, hats between
        "kick": [(0, 1), (1, 0.9), (2, 1), (3, 0.9)],
        "snare": [(1, 0.5), (3, 0.5)],
        "hat": [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (3.5, 0.5)],
    },
    {  # rock
        "kick": [(0, 1), (2, 1), (2.5, 0.6)],
        "snare": [(1, 1), (3, 1)],
        "hat": [(position / 2, 0.4) for position in range(8)],
    },
    {  # break beat
        "kick": [(0, 1), (1.5, 0.7), (2.5, 0.9)],
        "snare": [(1, 1), (3, 1)],
        "hat": [(position / 2, 0.5) for position in range(8)],
    },
    {  # hip hop
        "kick": [(0, 1), (1.75, 0.6), (2, 0.8)],
        "snare": [(1, 1), (3, 1)],
        "hat": [(0, 0.4), (1, 0.4), (2, 0.4), (3, 0.4), (3.5, 0.3)],
    },
]


def beat_times(seconds: float, first_bpm: float, last_bpm: float) -> NDArray[np.float64]:
    """Beats of a tempo that rises exponentially from the first to the last."""
    times, time_s = [], 0.5
    while time_s < seconds - 0.5:
        times.append(time_s)
        time_s += 60 / (first_bpm * (last_bpm / first_bpm) ** (time_s / seconds))
    return np.array(times)


def mix(
    seconds: float, first_bpm: float, last_bpm: float, *, bed: Bed | None = None, seed: int = 3
) -> tuple[PcmStream, NDArray[np.float64]]:
    """A stream of the mix, mono, in blocks of some ten seconds, and its beats in seconds.

    Every 64 beats another pattern begins, sometimes after 4 beats of nothing but the bed.
    """
    beats = beat_times(seconds, first_bpm, last_bpm)
    hits = _hits(beats, np.random.default_rng(seed))
    return PcmStream(SAMPLE_RATE, 1, _blocks(seconds, hits, bed or pads)), beats


def pads(start: int, stop: int) -> Samples:
    """Slow chords `[stop - start]` with vibrato, another every 3.7 seconds."""
    time_s = np.arange(start, stop) / SAMPLE_RATE
    chord = (time_s / 3.7).astype(int)
    roots = np.array([110.0, 130.8, 98.0, 146.8, 87.3, 123.5])[(chord * 5) % 6]
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * time_s / 3.7)
    tones = [np.sin(2 * np.pi * roots * ratio * time_s) for ratio in (1, 1.5, 2.0, 2.52, 4.0)]
    return (0.05 * swell * np.sum(tones, axis=0)).astype(np.float32)


def music_bed(files: list[Path], level: float = 0.1) -> Bed:
    """Real music, one file after the other from the first again, each brought to one RMS level."""
    order = {"number": 0, "left": np.zeros(0, np.float32)}

    def bed(start: int, stop: int) -> Samples:
        while len(order["left"]) < stop - start:
            order["left"] = np.concatenate([order["left"], _track(files, order, level)])
        part, order["left"] = order["left"][: stop - start], order["left"][stop - start :]
        return part

    return bed


def _track(files: list[Path], order: dict, level: float) -> Samples:
    path = files[order["number"] % len(files)]
    order["number"] += 1
    samples, _ = soundfile.read(str(path), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono * np.float32(level / max(1e-4, float(np.sqrt(np.mean(mono**2)))))


def _hits(beats: NDArray[np.float64], rng: np.random.Generator) -> list[tuple[float, str, float]]:
    hits = []
    periods = np.diff(beats, append=2 * beats[-1] - beats[-2])
    for bar in range(0, len(beats) - 3, 4):
        pattern = PATTERNS[(bar // 64) % len(PATTERNS)]
        if bar and bar % 64 == 0 and rng.random() < 0.3:
            continue
        for drum, strokes in pattern.items():
            for position, strength in strokes:
                beat = bar + int(position)
                time_s = beats[beat] + periods[beat] * (position % 1)
                human = rng.normal(0, 0.004)
                hits.append((time_s + human, drum, strength * rng.uniform(0.8, 1.0)))
    return sorted(hits)


def _drums() -> dict[str, Samples]:
    rng = np.random.default_rng(11)
    time_s = np.arange(round(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal(len(time_s))
    kick = np.sin(2 * np.pi * (50 * time_s + 6 * (1 - np.exp(-time_s * 30)))) * np.exp(-time_s * 18)
    kick += 0.1 * noise * np.exp(-time_s * 300)
    snare = 0.5 * noise * np.exp(-time_s * 25) + 0.4 * np.sin(2 * np.pi * 190 * time_s) * np.exp(
        -time_s * 30
    )
    hat = np.diff(noise, prepend=0) * np.exp(-time_s * 60)
    return {"kick": 0.6 * kick, "snare": 0.5 * snare, "hat": 0.12 * hat}


def _blocks(seconds: float, hits: list[tuple[float, str, float]], bed: Bed) -> Iterator[Samples]:
    drums, size, position = _drums(), 10 * SAMPLE_RATE, 0
    total, tail = round(seconds * SAMPLE_RATE), np.zeros(SAMPLE_RATE)
    next_hit = 0
    while position < total:
        stop = min(position + size, total)
        block = np.zeros(stop - position + SAMPLE_RATE)
        block[: len(tail)] += tail[: len(block)]
        while next_hit < len(hits) and hits[next_hit][0] * SAMPLE_RATE < stop:
            time_s, drum, strength = hits[next_hit]
            start = max(0, round(time_s * SAMPLE_RATE) - position)
            sound = drums[drum][: len(block) - start]
            block[start : start + len(sound)] += strength * sound
            next_hit += 1
        tail = block[stop - position :].copy()
        yield (0.5 * block[: stop - position] + bed(position, stop)).astype(np.float32)[:, None]
        position = stop


def f_measure(found: NDArray[np.float64], expected: NDArray[np.float64], window_s: float) -> float:
    """F-measure of events found, each expected one matched at most once within ± `window_s`."""
    hits, used = 0, 0
    for time_s in expected:
        while used < len(found) and found[used] < time_s - window_s:
            used += 1
        if used < len(found) and found[used] <= time_s + window_s:
            hits += 1
            used += 1
    return 2 * hits / max(1, len(found) + len(expected))
