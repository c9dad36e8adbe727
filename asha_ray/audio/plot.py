"""A picture of what was heard: waveform, onset strength and beats, and the two decays; stems below.

Shapes: w moments of the waveform, n video frames.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asha_ray.audio.blocks import mono_blocks
from asha_ray.values import Features, FloatArray, PcmStream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKGROUND = "#0b0b12"
INK = "#d8d8e4"
WAVE, ONSET, BEAT = "#5b5f77", "#f2b8ff", "#ffd166"
LINEAR, EXPONENTIAL = "#ff4d5e", "#4d8dff"
MAX_POINTS = 4000
MAX_LINES = 160
MOMENTS_PER_S = 50


@dataclass(frozen=True)
class Waveform:
    """The outline of a track, some moments a second.

    Attributes:
        times: `[w]` seconds at which each begins.
        low: `[w]` its lowest sample.
        high: `[w]` its highest.
    """

    times: NDArray[np.float64]
    low: FloatArray
    high: FloatArray


def measure_waveform(pcm: PcmStream) -> Waveform:
    """The outline of a track, as it streams by."""
    length = max(1, pcm.sample_rate // MOMENTS_PER_S)
    lows, highs, rest = [], [], np.zeros(0, np.float32)
    for block in mono_blocks(pcm):
        samples = np.concatenate([rest, block])
        whole = len(samples) - len(samples) % length
        moments = samples[:whole].reshape(-1, length)
        lows.append(moments.min(axis=1))
        highs.append(moments.max(axis=1))
        rest = samples[whole:]
    if len(rest):
        lows.append(rest.min(keepdims=True))
        highs.append(rest.max(keepdims=True))
    low = np.concatenate(lows)
    times = np.arange(len(low), dtype=np.float64) * (length / pcm.sample_rate)
    return Waveform(times, low, np.concatenate(highs))


def plot_features(wave: Waveform, features: Features, path: Path, title: str = "") -> None:
    """Draw a track, its features and those of its stems into a PNG file.

    Args:
        wave: the track's outline.
        features: its features.
        path: a local `.png` path.
        title: a line above the picture.
    """
    # They take most of a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_stems = len(features.stems)
    figure = Figure(figsize=(14, 7 + 1.6 * num_stems), facecolor=BACKGROUND, layout="constrained")
    FigureCanvasAgg(figure)
    heights = [2, 2, *[1] * num_stems]
    heard, decays, *rows = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=heights
    ).tolist()
    times = np.arange(features.num_frames) / float(features.fps)

    _style(heard, "onset strength and beats")
    _draw_waveform(heard, wave)
    # Few beats are lines through the sound; many would hide it, and are marks above it.
    low = -1 if len(features.beat_times) <= MAX_LINES else 0.9
    heard.vlines(features.beat_times, low, 1, color=BEAT, lw=0.7, alpha=0.7, label="beats")
    heard.plot(*_peaks(times, features.onset_strength), color=ONSET, lw=0.9, label="onset strength")
    heard.set_ylim(-1.05, 1.05)

    _style(decays, "decay from each beat")
    _draw_decays(decays, times, features)
    for axes, (stem, part) in zip(rows, features.stems.items(), strict=True):
        _style(axes, f"{stem}: {part.tempo:.0f} BPM, {len(part.beat_frames)} beats")
        axes.plot(*_peaks(times, part.onset_strength), color=ONSET, lw=0.6, alpha=0.8)
        _draw_decays(axes, times, part)
    decays.set_xlim(0, max(features.duration_s, 1e-3))
    (rows or [decays])[-1].set_xlabel("seconds", color=INK)

    for axes in (heard, decays):
        axes.legend(loc="upper right", facecolor=BACKGROUND, edgecolor="none", labelcolor=INK)
    summary = f"{features.tempo:.0f} BPM, {len(features.beat_frames)} beats"
    # A dollar sign would begin a formula, and underscores within one are subscripts.
    figure.suptitle(f"{title}   {summary}".replace("$", r"\$").strip(), color=INK, fontsize=12)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no one's mistake.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(path, format="png", dpi=110)


def _style(axes: "Axes", title: str) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.set_title(title, color=INK, fontsize=10, loc="left")
    axes.tick_params(colors=INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(color="#ffffff", alpha=0.06)


def _draw_waveform(axes: "Axes", wave: Waveform) -> None:
    step = max(1, len(wave.times) // MAX_POINTS)
    starts = np.arange(0, len(wave.times), step)
    low = np.minimum.reduceat(wave.low, starts)
    high = np.maximum.reduceat(wave.high, starts)
    axes.fill_between(wave.times[starts], low, high, color=WAVE, lw=0, label="waveform")


def _draw_decays(axes: "Axes", times: NDArray[np.float64], features: Features) -> None:
    for curve, colour, name, width in (
        (features.decay_exponential, EXPONENTIAL, "exponential", 1.4),
        (features.decay_linear, LINEAR, "linear", 0.7),
    ):
        axes.plot(*_peaks(times, curve), color=colour, lw=width, label=name)
    axes.set_ylim(0, 1.05)


def _peaks(
    times: NDArray[np.float64], curve: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Thin a long curve to about `MAX_POINTS` without losing its peaks."""
    step = max(1, len(curve) // MAX_POINTS)
    starts = np.arange(0, len(curve), step)
    return times[starts], np.maximum.reduceat(curve, starts)
