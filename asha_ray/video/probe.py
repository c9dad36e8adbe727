"""What a finished video is: counted and measured from its packets and pictures, not its header."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from asha_ray.errors import VideoError
from asha_ray.ffmpeg import INPUT_OPTIONS, file_url
from asha_ray.values import FloatArray, Size

BT709 = 1
LIMITED_RANGE = 1
MAX_PIXELS = 1 << 27
"""Of a frame, more than 15360x8640; of each, decoders keep sixteen and more."""


@dataclass(frozen=True)
class Pictures:
    """What the decoded frames show.

    Attributes:
        num_decoded: frames that decoded.
        num_distinct: frames whose luma differs from every other's.
        difference: `[n - 1]` mean absolute luma difference between neighbours, in 0..255.
    """

    num_decoded: int
    num_distinct: int
    difference: FloatArray


@dataclass(frozen=True)
class VideoReport:
    """What a video file is.

    Attributes:
        frames: video packets.
        fps: frames per second by the most frequent step.
        size: width and height.
        codec: of the video.
        video_start_s: when the first frame is shown.
        video_duration_s: `frames / fps`.
        timestamp_steps: how often each step between neighbouring frames occurs, in frames.
        audio_codec: of the sound, None without.
        audio_start_s: when the sound starts.
        audio_duration_s: length of the sound, priming and padding left out.
        colour: matrix, primaries, transfer and range, as tagged.
        faststart: whether the index comes before the data.
        pictures: what the decoded frames show, None if they were not decoded.
    """

    frames: int
    fps: Fraction
    size: Size
    codec: str
    video_start_s: Fraction
    video_duration_s: Fraction
    timestamp_steps: dict[Fraction, int]
    audio_codec: str | None
    audio_start_s: Fraction | None
    audio_duration_s: Fraction | None
    colour: dict[str, str]
    faststart: bool
    pictures: Pictures | None = field(default=None)

    def problems(self) -> list[str]:
        """What is off, a sentence each; empty when the file is as it should be."""
        found = []
        odd_steps = sum(count for step, count in self.timestamp_steps.items() if step != 1)
        if odd_steps:
            found.append(f"{odd_steps} timestamp steps are not exactly one frame")
        if self.video_start_s != 0:
            found.append(f"the first frame is shown at {float(self.video_start_s):.6f} s, not 0")
        if self.audio_codec is None:
            found.append("there is no sound")
        elif self.audio_start_s is not None and self.audio_duration_s is not None:
            if abs(self.audio_start_s) > Fraction(1, 1000):
                found.append(f"the sound starts at {float(self.audio_start_s):.6f} s, not 0")
            gap = self.audio_start_s + self.audio_duration_s - self.video_duration_s
            if abs(gap) > 1 / self.fps:
                found.append(f"sound and picture end {float(gap):+.4f} s apart, over one frame")
        wrong = [f"{name} {value}" for name, value in self.colour.items() if value != _GOOD[name]]
        if wrong:
            found.append(f"colour is not tagged as BT.709 limited: {', '.join(wrong)}")
        if not self.faststart:
            found.append("the index comes after the data (no faststart)")
        if self.pictures and self.pictures.num_decoded != self.frames:
            found.append(f"{self.pictures.num_decoded} of {self.frames} frames decode")
        return found


_GOOD = {"matrix": "bt709", "primaries": "bt709", "transfer": "bt709", "range": "limited"}


def probe(path: Path, *, decode: bool = True) -> VideoReport:
    """Measure a video file.

    Args:
        path: a local file.
        decode: whether to decode every frame and compare neighbours.

    Raises:
        VideoError: if it is no video.
    """
    try:
        with av.open(file_url(path), options=INPUT_OPTIONS) as container:
            if not container.streams.video:
                raise VideoError(f"inspecting {path}: it has no video stream")
            video = container.streams.video[0]
            times, audio_span = _read_times(container)
            if not times:
                raise VideoError(f"inspecting {path}: it has no frames")
            context = video.codec_context
            if context.width * context.height > MAX_PIXELS:
                raise VideoError(
                    f"inspecting {path}: frames of {context.width}x{context.height} are larger "
                    f"than {MAX_PIXELS:,} pixels; scale it down"
                )
            steps, fps = _steps(times, Fraction(video.average_rate or 1))
            report = VideoReport(
                frames=len(times),
                fps=fps,
                size=(context.width, context.height),
                codec=context.name,
                video_start_s=times[0],
                video_duration_s=len(times) / fps,
                timestamp_steps=steps,
                audio_codec=container.streams.audio[0].codec_context.name if audio_span else None,
                audio_start_s=audio_span[0] if audio_span else None,
                audio_duration_s=audio_span[1] - audio_span[0] if audio_span else None,
                colour=_colour(context),
                faststart=_is_faststart(path),
                pictures=None,
            )
        if decode:
            report = VideoReport(**{**vars(report), "pictures": _watch(path)})
    except (av.FFmpegError, OSError, ValueError, OverflowError, struct.error) as error:
        raise VideoError(f"inspecting {path}: it is no video that can be read ({error})") from error
    return report


def luma_frames(path: Path) -> Iterator[np.ndarray]:
    """The decoded luma planes `[H, W]` uint8 of a local video file."""
    with av.open(file_url(path), options=INPUT_OPTIONS) as container:
        video = container.streams.video[0]
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # they may grow on the way
        video.thread_type = "AUTO"
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            yield rows[:, : plane.width]


def _watch(path: Path) -> Pictures:
    seen: set[int] = set()
    differences = []
    before: np.ndarray | None = None
    count = 0
    for luma in luma_frames(path):
        now = luma.astype(np.int16)
        seen.add(zlib.crc32(np.ascontiguousarray(luma).data))
        if before is not None:
            differences.append(float(np.abs(now - before).mean()))
        before = now
        count += 1
    return Pictures(count, len(seen), np.asarray(differences, np.float32))


def _read_times(container: Any) -> tuple[list[Fraction], tuple[Fraction, Fraction] | None]:
    """Display times of all frames, ascending, and when the sound begins and ends."""
    times: list[Fraction] = []
    audio_stop: Fraction | None = None
    audio_start: Fraction | None = None
    last = Fraction(0)
    for packet in container.demux(*container.streams.video[:1], *container.streams.audio[:1]):
        if packet.size == 0 or packet.pts is None:
            continue
        time = packet.pts * packet.time_base
        if packet.stream.type == "video":
            times.append(time)
            continue
        stop, last = time + (packet.duration or 0) * packet.time_base, time
        audio_stop = stop if audio_stop is None else max(audio_stop, stop)
        # Packets before 0 are the encoder's priming; players drop them.
        start = max(time, Fraction(0))
        audio_start = start if audio_start is None else min(audio_start, start)
    if audio_start is None or audio_stop is None:
        return sorted(times), None
    sound = container.streams.audio[0]
    if sound.duration is not None and sound.start_time is not None:
        stated = (sound.start_time + sound.duration) * sound.time_base
        # How much of the last packet counts, only the header says; of all else it proves nothing.
        audio_stop = stated if last < stated < audio_stop else audio_stop
    return sorted(times), (audio_start, audio_stop)


def _steps(times: list[Fraction], nominal: Fraction) -> tuple[dict[Fraction, int], Fraction]:
    steps = Counter(after - before for before, after in pairwise(times))
    frame = steps.most_common(1)[0][0] if steps else 1 / nominal
    if frame <= 0:
        raise VideoError("inspecting: its frames share one timestamp")
    return {step / frame: count for step, count in steps.items()}, 1 / frame


def _colour(context: Any) -> dict[str, str]:
    def name(value: int) -> str:
        return "bt709" if value == BT709 else f"code {int(value)}"

    limited = int(context.color_range) == LIMITED_RANGE
    return {
        "matrix": name(context.colorspace),
        "primaries": name(context.color_primaries),
        "transfer": name(context.color_trc),
        "range": "limited" if limited else f"code {int(context.color_range)}",
    }


def _is_faststart(path: Path) -> bool:
    """Whether the top-level box `moov` comes before `mdat` (ISO/IEC 14496-12)."""
    with path.open("rb") as file:
        while len(header := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", header)
            if kind in (b"moov", b"mdat"):
                return bool(kind == b"moov")
            if size == 1:
                size = struct.unpack(">Q", file.read(8))[0] - 8
            if size < 8:
                return False
            file.seek(size - 8, 1)
    return False
