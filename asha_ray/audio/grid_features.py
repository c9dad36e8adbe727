"""What was measured on the 60 Hz grid, and the features of a video that follow from it.

NumPy alone is needed here: who renders from kept features need not wait for what measures them.
Shapes: g frames of the grid, n of the video, k beats, s seconds.
"""

from dataclasses import dataclass
from fractions import Fraction

from asha_ray.audio.envelopes import exponential_decay, linear_decay
from asha_ray.audio.grid import GRID_FPS
from asha_ray.audio.resample import at_video_frames, nearest_video_frames
from asha_ray.values import (
    Features,
    FlagArray,
    FloatArray,
    IndexArray,
    Normalisation,
    TimeArray,
    num_frames_of,
)


@dataclass(frozen=True)
class AnalysisSettings:
    """What may be chosen about an analysis.

    Attributes:
        decay_time: seconds in which the linear envelope falls from 1 to 0.
        decay_rate: what the exponential envelope loses per frame at 60 fps.
        decay_shape: `constant` or `proportional`, see `linear_decay`.
        normalise: `track` or `rolling`, see `to_unit`; None takes `track` up to 20 minutes.
    """

    decay_time: float = 0.25
    decay_rate: float = 0.25
    decay_shape: str = "constant"
    normalise: Normalisation | None = None


@dataclass(frozen=True)
class GridFeatures:
    """What is measured on the 60 Hz grid, before any video rate is known.

    Attributes:
        duration_s: seconds of sound, exactly.
        onset_strength: `[g]` in 0..1.
        beat_frames: `[k]`.
        tempo: beats per minute.
        rms: `[g]` in 0..1 of full scale.
        bands: `[g, 3]` in 0..1.
        chroma: `[g, 12]` in 0..1.
        centroid: `[g]` Hz.
        section_times: `[a]` seconds, see `find_sections`.
        track_times: `[b]` seconds, see `find_tracks`.
        speech: `[s]` whether somebody speaks, for each second.
        silence: `[s]` whether nothing is heard, for each second.
        num_replaced: samples that were damaged and count as silence.
    """

    duration_s: Fraction
    onset_strength: FloatArray
    beat_frames: IndexArray
    tempo: float
    rms: FloatArray
    bands: FloatArray
    chroma: FloatArray
    centroid: FloatArray
    section_times: TimeArray
    track_times: TimeArray
    speech: FlagArray
    silence: FlagArray
    num_replaced: int = 0


def as_features(grid: GridFeatures) -> Features:
    """What was measured as features of a video at the grid's own rate: how it is kept in a file."""
    return features_at(grid, Fraction(GRID_FPS), AnalysisSettings())


def from_features(features: Features, num_replaced: int) -> GridFeatures:
    """The inverse of `as_features`."""
    if features.fps != GRID_FPS:
        raise ValueError(f"features at {features.fps} fps are not those of the grid")
    curves = ("onset_strength", "beat_frames", "tempo", "rms", "bands", "chroma", "centroid")
    places = ("section_times", "track_times", "speech", "silence")
    return GridFeatures(
        duration_s=features.exact_duration_s,
        num_replaced=num_replaced,
        **{name: getattr(features, name) for name in (*curves, *places)},
    )


def features_at(grid: GridFeatures, fps: Fraction, settings: AnalysisSettings) -> Features:
    """Measured features at the frames of a video, with the envelopes at its rate."""
    num_frames = num_frames_of(grid.duration_s, fps)
    onset_strength = at_video_frames(grid.onset_strength, num_frames, fps, keep_peaks=True)
    beat_frames, kept = nearest_video_frames(grid.beat_frames, num_frames, fps)
    return Features(
        fps=fps,
        duration_s=float(grid.duration_s),
        onset_strength=onset_strength,
        beat_frames=beat_frames,
        beat_times=grid.beat_frames[kept] / GRID_FPS,
        tempo=grid.tempo,
        decay_linear=linear_decay(
            onset_strength,
            beat_frames,
            fps,
            decay_time=settings.decay_time,
            shape=settings.decay_shape,
        ),
        decay_exponential=exponential_decay(
            onset_strength, beat_frames, fps, decay_rate=settings.decay_rate
        ),
        rms=at_video_frames(grid.rms, num_frames, fps),
        bands=at_video_frames(grid.bands, num_frames, fps),
        chroma=at_video_frames(grid.chroma, num_frames, fps),
        centroid=at_video_frames(grid.centroid, num_frames, fps),
        section_times=grid.section_times,
        track_times=grid.track_times,
        speech=grid.speech,
        silence=grid.silence,
    )
