"""Beats on the 60 Hz grid: librosa's tracker for a track, and one that follows a mix's tempo.

Shapes: g frames of the grid, k beats, s seconds, t candidate tempi.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

from asha_ray.audio.grid import GRID_FPS, HOP_LENGTH, SAMPLE_RATE
from asha_ray.values import FloatArray, IndexArray

Curve = NDArray[np.float64]

TEMPOGRAM_FRAMES = 480
"""librosa's window of 8 s, in which it looks for a track's tempo."""
CHUNK_FRAMES = 60 * GRID_FPS

LOWEST_BPM, HIGHEST_BPM = 87.0, 177.0
"""Just over an octave, the one that DJ software folds tempi into (Traktor: 88 to 175)."""
NUM_TEMPI = 180
NUM_BEAT_LAGS = 4
WINDOW_S = 12
STEP_COST = 0.05
"""What a change of tempo by one candidate (0.4 %) a second costs, in units of autocorrelation."""
JUMP_COST = 4.0
MAX_STEPS = 6
LEVEL_S = 8
"""Seconds over which onsets are brought to one level."""
BAND_WEIGHTS = (1.0, 0.7, 0.5)
"""Low counts most: in most music that is mixed, bass drums mark the beat, and hats its middle."""


def track_beats(onset_strength: NDArray[np.floating]) -> tuple[float, IndexArray]:
    """One tempo and its beats, by librosa's tracker (Ellis 2007) with its own settings.

    Args:
        onset_strength: `[g]`, in any unit.

    Returns:
        Beats per minute, 0 in silence, and the beats' frames `[k]`.
    """
    if not onset_strength.any():
        return 0.0, np.zeros(0, np.int64)
    # It takes a second to import, which who reads kept features need not wait for.
    from librosa.feature import tempo as estimate_tempo

    from asha_ray.audio.tracker import beat_track

    mean_tempogram = _mean_tempogram(onset_strength)
    tempo = estimate_tempo(tg=mean_tempogram, sr=SAMPLE_RATE, hop_length=HOP_LENGTH)
    _, beats = beat_track(
        onset_envelope=onset_strength, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, bpm=tempo
    )
    return float(np.atleast_1d(tempo)[0]), np.asarray(beats, np.int64)


def track_changing_beats(flux: FloatArray) -> tuple[float, IndexArray]:
    """Beats of a mix whose tempo moves, in memory that a track of any length fits in.

    The local tempo is found by dynamic programming over the autocorrelation of windows of 12 s,
    the beats by librosa's tracker, which takes a tempo for each frame.

    Args:
        flux: `[g, 3]` how much low, middle and high mel bands rise in loudness.

    Returns:
        The median tempo in beats per minute, 0 in silence, and the beats' frames `[k]`.
    """
    from asha_ray.audio.tracker import beat_track

    novelty = _novelty(flux)
    if not novelty.any():
        return 0.0, np.zeros(0, np.int64)
    bpm = local_tempo(novelty)
    seconds = (np.arange(len(novelty)) + 0.5) / GRID_FPS - 0.5
    _, beats = beat_track(
        onset_envelope=np.maximum(novelty, 0),
        sr=SAMPLE_RATE,
        hop_length=HOP_LENGTH,
        bpm=np.interp(seconds, np.arange(len(bpm)), bpm),
        trim=False,
    )
    return float(np.median(bpm)), np.asarray(beats, np.int64)


def local_tempo(novelty: Curve) -> Curve:
    """The tempo around each second: the smoothest course through what autocorrelates best.

    Args:
        novelty: `[g]` onsets around 0, of one level throughout.

    Returns:
        `[s]` beats per minute, between 87 and 177.
    """
    tempi = np.geomspace(LOWEST_BPM, HIGHEST_BPM, NUM_TEMPI)
    salience = np.concatenate(_saliences(novelty, tempi))
    return np.asarray(tempi[_smoothest_course(salience)])


def _mean_tempogram(onset_strength: NDArray[np.floating]) -> Curve:
    """librosa's tempogram `[480, 1]` averaged over time, in 10 MB instead of 13 MB a minute."""
    from librosa.feature import tempogram

    half = TEMPOGRAM_FRAMES // 2
    padded = np.pad(onset_strength, half, mode="linear_ramp", end_values=0)
    total = np.zeros((TEMPOGRAM_FRAMES, 1))
    for start in range(0, len(onset_strength), CHUNK_FRAMES):
        stop = min(start + CHUNK_FRAMES, len(onset_strength))
        part = tempogram(
            onset_envelope=padded[start : stop + TEMPOGRAM_FRAMES - 1],
            sr=SAMPLE_RATE,
            hop_length=HOP_LENGTH,
            win_length=TEMPOGRAM_FRAMES,
            center=False,
        )
        total += part.sum(axis=1, keepdims=True)
    return total / len(onset_strength)


def _novelty(flux: FloatArray) -> Curve:
    """Onsets `[g]` of all bands, less the local mean and brought to one local level."""
    levelled = np.empty(flux.shape)
    for band, rises in enumerate(flux.T):
        levelled[:, band] = _levelled(rises.astype(np.float64))
    return np.asarray(levelled @ np.array(BAND_WEIGHTS))


def _levelled(rises: Curve) -> Curve:
    width = LEVEL_S * GRID_FPS
    mean = uniform_filter1d(rises, width, mode="nearest")
    variance = uniform_filter1d(np.square(rises), width, mode="nearest") - mean**2
    deviation = np.sqrt(np.maximum(variance, 0))
    floor = 0.1 * deviation.max(initial=0)
    return np.asarray((rises - mean) / np.maximum(np.maximum(deviation, floor), 1e-6))


def _saliences(novelty: Curve, tempi: Curve) -> list[Curve]:
    """How well onsets recur after 1, 2, 3 and 4 beats of each tempo, per second: parts `[s, t]`."""
    window = WINDOW_S * GRID_FPS
    padded = np.pad(novelty, (window // 2 - GRID_FPS // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::GRID_FPS]
    num_seconds = -(-len(novelty) // GRID_FPS)
    lags = np.outer(np.arange(1, NUM_BEAT_LAGS + 1), 60 * GRID_FPS / tempi)
    return [
        _recurrence(frames[start : min(start + 64, num_seconds)], lags)
        for start in range(0, num_seconds, 64)
    ]


def _recurrence(frames: Curve, lags: Curve) -> Curve:
    size, num_lags = frames.shape[1], int(lags.max()) + 2
    taper = np.hanning(size)
    spectrum = fft.rfft(frames * taper, 2 * size, axis=1)
    overlap = fft.irfft(np.abs(fft.rfft(taper, 2 * size)) ** 2)[:num_lags]
    correlation = fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :num_lags]
    correlation /= overlap * np.maximum(correlation[:, :1] / overlap[0], 1e-3)
    low = lags.astype(int)
    part = lags - low
    at_lags = (1 - part) * correlation[:, low] + part * correlation[:, low + 1]
    return np.asarray(at_lags.mean(axis=1))


def _smoothest_course(salience: Curve) -> IndexArray:
    """Viterbi's best path `[s]` through `[s, t]`: few steps, and jumps only where they pay."""
    num_seconds, num_tempi = salience.shape
    came_from = np.zeros((num_seconds, num_tempi), np.int16)
    score = salience[0]
    columns = np.arange(num_tempi)
    for second in range(1, num_seconds):
        best, origin = score, columns
        for step in range(1, MAX_STEPS + 1):
            for shift in (step, -step):
                shifted = np.full(num_tempi, -np.inf)
                inside = slice(max(0, -shift), num_tempi - max(0, shift))
                shifted[inside] = score[inside.start + shift : inside.stop + shift]
                shifted -= STEP_COST * step
                better = shifted > best
                best, origin = (
                    np.where(better, shifted, best),
                    np.where(better, columns + shift, origin),
                )
        jump = int(score.argmax())
        jumps = score[jump] - JUMP_COST > best
        came_from[second] = np.where(jumps, jump, origin)
        score = np.where(jumps, score[jump] - JUMP_COST, best) + salience[second]
    course = np.zeros(num_seconds, np.int64)
    course[-1] = int(score.argmax())
    for second in range(num_seconds - 1, 0, -1):
        course[second - 1] = came_from[second, course[second]]
    return course
