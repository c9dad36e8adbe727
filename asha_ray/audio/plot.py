"""A picture of what was heard: waveform, onset strength and beats, and the two decays."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from asha_ray.values import AudioClip, Features

BACKGROUND = "#0b0b12"
INK = "#d8d8e4"
WAVE, ONSET, BEAT = "#5b5f77", "#f2b8ff", "#ffd166"
LINEAR, EXPONENTIAL = "#ff4d5e", "#4d8dff"
MAX_POINTS = 4000


def plot_features(clip: AudioClip, features: Features, path: Path, title: str = "") -> None:
    """Draw a track and its features into a PNG file.

    Args:
        clip: the track.
        features: its features.
        path: a local `.png` path.
        title: a line above the picture.
    """
    figure = Figure(figsize=(14, 7), facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    heard, decays = figure.subplots(2, 1, sharex=True)
    times = np.arange(features.num_frames) / float(features.fps)

    _style(heard, "onset strength and beats")
    _draw_waveform(heard, clip)
    heard.vlines(features.beat_times, -1, 1, color=BEAT, lw=0.7, alpha=0.7, label="beats")
    heard.plot(*_peaks(times, features.onset_strength), color=ONSET, lw=0.9, label="onset strength")
    heard.set_ylim(-1.05, 1.05)

    _style(decays, "decay from each beat")
    decays.plot(*_peaks(times, features.decay_linear), color=LINEAR, lw=1.1, label="linear")
    decays.plot(
        *_peaks(times, features.decay_exponential), color=EXPONENTIAL, lw=1.1, label="exponential"
    )
    decays.set_ylim(0, 1.05)
    decays.set_xlim(0, max(features.duration_s, 1e-3))
    decays.set_xlabel("seconds", color=INK)

    for axes in (heard, decays):
        axes.legend(loc="upper right", facecolor=BACKGROUND, edgecolor="none", labelcolor=INK)
    summary = f"{features.tempo:.0f} BPM, {len(features.beat_frames)} beats"
    # A dollar sign would begin a formula, and underscores within one are subscripts.
    figure.suptitle(f"{title}   {summary}".replace("$", r"\$").strip(), color=INK, fontsize=12)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no one's mistake.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(path, format="png", dpi=110)


def _style(axes: Axes, title: str) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.set_title(title, color=INK, fontsize=10, loc="left")
    axes.tick_params(colors=INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(color="#ffffff", alpha=0.06)


def _draw_waveform(axes: Axes, clip: AudioClip) -> None:
    step = max(1, len(clip.samples) // MAX_POINTS)
    starts = np.arange(0, len(clip.samples), step)
    low = np.minimum.reduceat(clip.samples, starts)
    high = np.maximum.reduceat(clip.samples, starts)
    axes.fill_between(starts / clip.sample_rate, low, high, color=WAVE, lw=0, label="waveform")


def _peaks(
    times: NDArray[np.float64], curve: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Thin a long curve to about `MAX_POINTS` without losing its peaks."""
    step = max(1, len(curve) // MAX_POINTS)
    starts = np.arange(0, len(curve), step)
    return times[starts], np.maximum.reduceat(curve, starts)
