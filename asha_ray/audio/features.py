"""Onset strength, beats, levels and bands of a track, on the frames of a video.

Everything is measured on the article's grid, 30,720 Hz with a hop of 512 samples: 60 analysis
frames a second, one for each video frame at 60 fps. Other video rates are resampled from it, so
the same music looks the same at 24 and at 60 fps.
"""

import warnings
from dataclasses import dataclass
from fractions import Fraction

import librosa
import numpy as np
from librosa.beat import beat_track
from librosa.onset import onset_strength as measure_onsets
from numpy.typing import NDArray

from asha_ray.audio.envelopes import exponential_decay, linear_decay
from asha_ray.values import AudioClip, Features, FloatArray, IndexArray, num_frames_of

GRID_FPS = 60
HOP_LENGTH = 512
SAMPLE_RATE = GRID_FPS * HOP_LENGTH
N_FFT = 2048
BAND_EDGES_HZ = (250.0, 4000.0)
"""Low reaches up to the first, high begins at the second."""


@dataclass(frozen=True)
class GridFeatures:
    """What is measured on the 60 Hz grid (g frames), before any video rate is known."""

    duration_s: Fraction
    onset_strength: FloatArray
    beat_frames: IndexArray
    tempo: float
    rms: FloatArray
    bands: FloatArray


def analyze_clip(
    clip: AudioClip,
    fps: Fraction,
    *,
    decay_time: float = 0.25,
    decay_rate: float = 0.25,
    decay_shape: str = "constant",
) -> Features:
    """All features of a track at the frames of a video.

    Args:
        clip: the track.
        fps: the video's frames per second.
        decay_time: seconds in which the linear envelope falls from 1 to 0.
        decay_rate: what the exponential envelope loses per frame at 60 fps.
        decay_shape: `constant` or `proportional`, see `linear_decay`.

    Returns:
        Features of `ceil(duration * fps)` frames. A silent track has no beats and is 0 throughout.
    """
    grid = measure(clip)
    num_frames = num_frames_of(clip.duration_s, fps)
    onset_strength = _resample(grid.onset_strength, num_frames, fps, keep_peaks=True)
    beat_frames, kept = _nearest_frames(grid.beat_frames, num_frames, fps)
    return Features(
        fps=fps,
        duration_s=float(clip.duration_s),
        onset_strength=onset_strength,
        beat_frames=beat_frames,
        beat_times=grid.beat_frames[kept] / GRID_FPS,
        tempo=grid.tempo,
        decay_linear=linear_decay(
            onset_strength, beat_frames, fps, decay_time=decay_time, shape=decay_shape
        ),
        decay_exponential=exponential_decay(
            onset_strength, beat_frames, fps, decay_rate=decay_rate
        ),
        rms=_resample(grid.rms, num_frames, fps),
        bands=np.stack([_resample(band, num_frames, fps) for band in grid.bands.T], axis=1),
    )


def measure(clip: AudioClip) -> GridFeatures:
    """Measure a track on the 60 Hz grid.

    Onset strength is librosa's with a median over mel bands, divided by its maximum; beats are
    librosa's beat tracker's on the same curve.
    """
    samples = librosa.resample(
        clip.samples, orig_sr=clip.sample_rate, target_sr=SAMPLE_RATE, res_type="soxr_hq"
    )
    num_frames = num_frames_of(clip.duration_s, Fraction(GRID_FPS))
    # Zeros at the end change nothing (frames are centred on zero padding) but let the shortest
    # clip fill one window.
    samples = np.pad(samples, (0, max(0, N_FFT - len(samples))))
    onset = measure_onsets(y=samples, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, aggregate=np.median)
    tempo, beats = _track_beats(onset)
    beats = beats[beats < num_frames]
    return GridFeatures(
        duration_s=clip.duration_s,
        onset_strength=_to_unit(onset[:num_frames]),
        beat_frames=beats,
        tempo=tempo,
        rms=librosa.feature.rms(y=samples, frame_length=N_FFT, hop_length=HOP_LENGTH)[
            0, :num_frames
        ].astype(np.float32),
        bands=_bands(samples)[:num_frames],
    )


def _track_beats(onset: NDArray[np.floating]) -> tuple[float, IndexArray]:
    if not onset.any():
        return 0.0, np.zeros(0, np.int64)
    with warnings.catch_warnings():
        # A clip shorter than the tracker's window is fine; it merely has few beats.
        warnings.simplefilter("ignore", UserWarning)
        tempo, beats = beat_track(onset_envelope=onset, sr=SAMPLE_RATE, hop_length=HOP_LENGTH)
    return float(np.atleast_1d(tempo)[0]), np.asarray(beats, np.int64)


def _bands(samples: FloatArray) -> FloatArray:
    magnitude = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH))
    frequencies = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=N_FFT)
    band_of_bin = np.searchsorted(BAND_EDGES_HZ, frequencies, side="right")
    levels = [
        np.sqrt(np.mean(np.square(magnitude[band_of_bin == band]), axis=0)) for band in range(3)
    ]
    return np.stack([_to_unit(level) for level in levels], axis=1)


def _to_unit(curve: NDArray[np.floating]) -> FloatArray:
    maximum = float(curve.max(initial=0))
    # Below this is no sound but the residue of arithmetic.
    scale = 1 / maximum if maximum > 1e-10 else 0.0
    return (curve * scale).astype(np.float32)


def _resample(
    curve: FloatArray, num_frames: int, fps: Fraction, *, keep_peaks: bool = False
) -> FloatArray:
    """A curve of the 60 Hz grid at a video's frames: what falls to each frame, or between two.

    A frame stands for the half-open interval of half a frame to each side. It takes the maximum
    (`keep_peaks`) or mean of the grid values in there, or where there are none, the value
    interpolated at its time.
    """
    if fps == GRID_FPS:
        return curve[:num_frames]
    owner = np.minimum(_frame_of_grid(np.arange(len(curve)), fps), num_frames - 1)
    times = np.arange(num_frames) * float(GRID_FPS / fps)
    result = np.interp(times, np.arange(len(curve)), curve)
    owned = np.unique(owner)
    starts = np.searchsorted(owner, owned)
    if keep_peaks:
        result[owned] = np.maximum.reduceat(curve, starts)
    else:
        result[owned] = np.add.reduceat(curve, starts) / np.diff([*starts, len(curve)])
    return np.asarray(result, np.float32)


def _nearest_frames(
    grid_frames: IndexArray, num_frames: int, fps: Fraction
) -> tuple[IndexArray, IndexArray]:
    """The video frames of beats, and which beats they are: of several in one frame the first."""
    nearest = np.minimum(_frame_of_grid(grid_frames, fps), num_frames - 1)
    return np.unique(nearest, return_index=True)


def _frame_of_grid(grid_frames: IndexArray, fps: Fraction) -> IndexArray:
    # round half up of g * fps / 60, in integers
    ratio = fps / GRID_FPS
    return (2 * grid_frames * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)
