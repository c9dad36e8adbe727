"""Onset strength, beats, levels, bands and pitch classes of a track, on the frames of a video.

A track of any length flows through: decoded, resampled to the analysis grid and cut into blocks
(`blocks`), which are measured one by one, anywhere (`measure`), and put together (`merge`). A
track in memory takes the same way. Shapes: g frames of the 60 Hz grid, n of the video, k
beats, s seconds.
"""

from collections.abc import Iterator
from fractions import Fraction

from asha_ray.audio.beats import track_beats, track_changing_beats
from asha_ray.audio.blocks import iter_blocks, stream_of_clip
from asha_ray.audio.grid import GRID_FPS, HOP_LENGTH, SAMPLE_RATE
from asha_ray.audio.grid_features import AnalysisSettings, GridFeatures, features_at
from asha_ray.audio.measure import BlockFeatures, measure_block, prepare
from asha_ray.audio.merge import Curves, merge_blocks
from asha_ray.audio.normalise import to_unit
from asha_ray.audio.parallel import OrderedMap
from asha_ray.audio.speech import find_speech
from asha_ray.audio.structure import find_sections, find_tracks
from asha_ray.values import AudioClip, Features, Normalisation, PcmStream, num_frames_of

__all__ = [
    "HOP_LENGTH",
    "SAMPLE_RATE",
    "AnalysisSettings",
    "GridFeatures",
    "analyze_clip",
    "analyze_stream",
    "features_at",
    "grid_features",
    "measure",
    "measure_stream",
    "measured_blocks",
]

MIX_S = 20 * 60
"""Anything longer is a mix rather than a track: not of one level, nor of one tempo."""


def analyze_clip(
    clip: AudioClip,
    fps: Fraction,
    *,
    decay_time: float = 0.25,
    decay_rate: float = 0.25,
    decay_shape: str = "constant",
    normalise: Normalisation | None = None,
) -> Features:
    """All features of a track in memory at the frames of a video.

    Args:
        clip: the track.
        fps: the video's frames per second.
        decay_time: see `AnalysisSettings`, as the rest.
        decay_rate: likewise.
        decay_shape: likewise.
        normalise: likewise.

    Returns:
        Features of `ceil(duration * fps)` frames. A silent track has no beats and is 0 throughout.
    """
    settings = AnalysisSettings(decay_time, decay_rate, decay_shape, normalise)
    return features_at(measure(clip, normalise), fps, settings)


def analyze_stream(
    pcm: PcmStream,
    fps: Fraction,
    settings: AnalysisSettings | None = None,
    map: OrderedMap = map,  # noqa: A002 (it is what it does)
) -> Features:
    """All features of a track of any length at the frames of a video, in bounded memory.

    Args:
        pcm: the track; no more of it is held than the blocks in flight.
        fps: the video's frames per second.
        settings: what may be chosen.
        map: spreads the blocks, see `map_in_threads`; the builtin takes one after the other.

    Returns:
        Features of `ceil(duration * fps)` frames, equal to those of `analyze_clip`.
    """
    settings = settings or AnalysisSettings()
    return features_at(measure_stream(pcm, settings.normalise, map), fps, settings)


def measure(clip: AudioClip, normalise: Normalisation | None = None) -> GridFeatures:
    """Measure a track in memory on the 60 Hz grid; see `measure_stream`."""
    return measure_stream(stream_of_clip(clip), normalise)


def measure_stream(
    pcm: PcmStream,
    normalise: Normalisation | None = None,
    map: OrderedMap = map,  # noqa: A002
) -> GridFeatures:
    """Measure a track on the 60 Hz grid.

    Up to 20 minutes, onset strength is librosa's with a median over mel bands, divided by its
    maximum, and beats are librosa's beat tracker's on the same curve.
    """
    return grid_features(merge_blocks(measured_blocks(pcm, map), pcm.sample_rate), normalise)


def measured_blocks(
    pcm: PcmStream,
    map: OrderedMap = map,  # noqa: A002
) -> Iterator[BlockFeatures]:
    """What is measured of a track, block by block and in order."""
    prepare()
    return map(measure_block, iter_blocks(pcm))


def grid_features(curves: Curves, normalise: Normalisation | None = None) -> GridFeatures:
    """What follows from a track's curves as a whole: scale, beats and structure."""
    normalise = normalise or ("track" if curves.duration_s <= MIX_S else "rolling")
    num_frames = num_frames_of(curves.duration_s, Fraction(GRID_FPS))
    if curves.duration_s <= MIX_S:
        tempo, beats = track_beats(curves.onset_strength)
    else:
        tempo, beats = track_changing_beats(curves.flux)
    speech, silence = find_speech(curves)
    return GridFeatures(
        duration_s=curves.duration_s,
        onset_strength=to_unit(curves.onset_strength[:num_frames], normalise),
        beat_frames=beats[beats < num_frames],
        tempo=tempo,
        rms=curves.rms[:num_frames],
        bands=to_unit(curves.bands[:num_frames], normalise),
        chroma=curves.chroma[:num_frames],
        centroid=curves.centroid[:num_frames],
        section_times=find_sections(curves),
        track_times=find_tracks(curves),
        speech=speech,
        silence=silence,
        num_replaced=curves.num_replaced,
    )
