"""What a whole archive would take, told from the names and bytes of its shows."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import PurePosixPath

from asha_ray.farm.models import load_files
from asha_ray.farm.rendering.plan import video_size
from asha_ray.farm.tools.forecast import (
    SOUND_BYTES_PER_S,
    Forecast,
    Known,
    fixed_stages,
    pace_for,
    priced,
    workers_of,
)
from asha_ray.farm.tools.pace import Pace
from asha_ray.spec import ArchiveSpec, RenderSpec
from asha_ray.values import num_frames_of

CD_BYTES_PER_S = 176_400
BYTES_PER_S: Mapping[str, float] = {
    **dict.fromkeys((".wav", ".aif", ".aiff", ".w64", ".caf", ".au"), CD_BYTES_PER_S),
    **dict.fromkeys((".flac", ".wv", ".tak", ".tta", ".shn"), 0.6 * CD_BYTES_PER_S),
    ".mp3": 192_000 / 8,
    **dict.fromkeys((".m4a", ".aac", ".mp4", ".m4b", ".wma", ".asf"), 160_000 / 8),
    **dict.fromkeys((".ogg", ".oga", ".mpc"), 160_000 / 8),
    ".opus": 96_000 / 8,
}
"""Suffix of a sound file -> bytes of a second, as such files mostly are."""


def plan_archive(
    spec: ArchiveSpec,
    sizes: Iterable[tuple[str, int]],
    known: Known,
    *,
    num_done: int = 0,
    num_left_out: int = 0,
    bytes_per_s: Mapping[str, float] = BYTES_PER_S,
) -> Forecast:
    """What a whole archive would take, by the bytes of its shows; none of them is opened.

    Args:
        spec: the archive.
        sizes: key and bytes of each show that is to be done.
        known: rates and prices.
        num_done: shows that are done already.
        num_left_out: shows that are not to be done.
        bytes_per_s: suffix of a sound file -> bytes of a second; others count as `.mp3` mostly is.

    Raises:
        SpecError: if there is no rate for it.
        ModelError: if the model cannot be loaded.
    """
    # Of a render it has the groups that decide its pace, and no track of its own.
    one = RenderSpec(
        audio=spec.source, model=spec.model, output=spec.output, video=spec.video, run=spec.run
    )
    files = load_files(spec.model, decoder_only=True)
    size = video_size(one, files.architecture.image_size)
    pace = pace_for(one, files, size, known)
    workers, notes = workers_of(one)
    shows, fps = list(sizes), Fraction(spec.video.fps)
    lengths = [_estimated_s(key, num_bytes, bytes_per_s) for key, num_bytes in shows]
    frames = [num_frames_of(Fraction(seconds), fps) for seconds in lengths]
    chunk_frames = max(1, round(spec.run.chunk_s * fps))
    frame_bytes = pace.bits_per_pixel * size[0] * size[1] / 8
    forecast = Forecast(
        kind="archive",
        what=spec.source,
        shows=len(shows),
        source_bytes=sum(num_bytes for _, num_bytes in shows),
        duration_s=sum(lengths),
        frames=sum(frames),
        fps=spec.video.fps,
        size=size,
        chunks=sum(ceil(count / chunk_frames) for count in frames),
        missing_frames=sum(frames),
        segment_bytes=round(frame_bytes * sum(frames)),
        video_bytes=round(frame_bytes * sum(frames) + sum(lengths) * SOUND_BYTES_PER_S),
        workers=workers,
        notes=(
            *notes,
            *([f"{num_done} shows more are done already"] if num_done else []),
            *([f"{num_left_out} shows more are parked or left out"] if num_left_out else []),
            "hours of sound are estimated from bytes, by usual bit rates of each file type, or by "
            "those of shows that are done",
            "rules and sidecars are not looked at",
        ),
    )
    taken = _taken(forecast, pace)
    shared = {name: seconds / workers for name, seconds in taken.items()}
    forecast = replace(forecast, stages={**fixed_stages(one, pace), **shared})
    return priced(forecast, pace, spec.run, sum(taken.values()), known.prices)


def _taken(forecast: Forecast, pace: Pace) -> dict[str, float]:
    """Seconds of one worker for all shows, by what it does."""
    rendering = forecast.frames / pace.frames_per_s + forecast.chunks * pace.chunk_s
    machine = pace.machine
    # What has a GPU goes on rendering while other cores listen and join.
    if pace.on_gpu or machine is None:
        return {"rendering": rendering}
    return {
        "listening": forecast.duration_s / machine.listen,
        "rendering": rendering,
        "joining": forecast.duration_s / machine.join,
    }


def suffix_of(key: str) -> str:
    """The last part of a file's name, from its dot on, in small letters."""
    return PurePosixPath(key).suffix.lower()


def _estimated_s(key: str, num_bytes: int, bytes_per_s: Mapping[str, float]) -> float:
    return num_bytes / bytes_per_s.get(suffix_of(key), BYTES_PER_S[".mp3"])
