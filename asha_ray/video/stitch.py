"""Segments and sound to one mp4, with every frame exactly one frame after the last.

Joining files by their own times leaves a seam at every joint (507 ticks for 512, measured). So
each packet gets its times from the number of its frame in the whole video: `pts` from its place
in display order, `dts` from its place in decoding order less one constant delay.
"""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from asha_ray.errors import EncodeError, SegmentError
from asha_ray.ffmpeg import INPUT_OPTIONS, file_url
from asha_ray.values import Tags
from asha_ray.video.tags import add_cover, add_tags

REORDER_DELAY = 2
"""Frames by which decoding runs ahead of display, as the encoders' B-pyramids need."""

SOUND_OPTIONS = {**INPUT_OPTIONS, "fflags": "+noparse+nofillin"}
"""A parser would give the last packet its codec's full length, where the file says how much counts.
"""


def stitch(
    segments: Iterable[tuple[Path, int]],
    sound: Path | None,
    path: Path,
    fps: Fraction,
    tags: Tags = Tags(),  # noqa: B008 (frozen)
    duration_s: Fraction = Fraction(0),
) -> int:
    """Join segments and sound into an mp4 that can be played while it loads.

    Args:
        segments: local files in order, each with the frames it must have; opened one at a time.
        sound: a local `.m4a` file, or None for a silent video.
        path: where the video goes, a local file.
        fps: frames per second.
        tags: what the video says of itself.
        duration_s: seconds of all segments, by which its last chapter ends.

    Returns:
        The number of frames.

    Raises:
        SegmentError: if the segment that was read last is not what it should be.
        EncodeError: if the file cannot be written.
    """
    counter = _Counter()
    try:
        with ExitStack() as stack:
            output = stack.enter_context(
                av.open(file_url(path), "w", format="mp4", options={"movflags": "+faststart"})
            )
            add_tags(output, tags, duration_s)
            pending = iter(segments)
            first = next(pending, None)
            if first is None:
                raise EncodeError(f"joining segments into {path.name}: there are none")
            video = _add_video(output, first[0], fps)
            streams = [_video_packets([first], pending, video, fps, counter)]
            if sound is not None:
                source = stack.enter_context(av.open(file_url(sound), options=SOUND_OPTIONS))
                audio = output.add_stream_from_template(source.streams.audio[0])
                streams.append(_audio_packets(source, audio))
            cover = add_cover(output, tags.artwork)
            if cover is not None:
                output.mux(cover)
            for _, _, packet in heapq.merge(*streams, key=lambda item: item[:2]):
                output.mux(packet)
    except (av.FFmpegError, OSError) as error:
        raise EncodeError(f"joining segments into {path.name}: {error}") from error
    return counter.frames


class _Counter:
    frames = 0


def _add_video(output: Any, first: Path, fps: Fraction) -> Any:
    try:
        with av.open(file_url(first), options=INPUT_OPTIONS) as source:
            # Opaque, or the decoder that opened it must also be an encoder (AV1's is not).
            stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
    except (av.FFmpegError, IndexError) as error:
        raise SegmentError(f"joining segment {first.name}: {error}") from error
    stream.time_base = 1 / fps
    return stream


def _video_packets(
    head: Iterable[tuple[Path, int]],
    rest: Iterable[tuple[Path, int]],
    stream: Any,
    fps: Fraction,
    counter: _Counter,
) -> Iterator[tuple[Fraction, int, Any]]:
    for segments in (head, rest):
        for path, num_frames in segments:
            for packet in _segment_packets(path, num_frames, counter.frames, stream, fps):
                yield packet.dts / fps, 0, packet
            counter.frames += num_frames


def _segment_packets(
    path: Path, num_frames: int, base: int, stream: Any, fps: Fraction
) -> Iterator[Any]:
    seen = 0
    try:
        with av.open(file_url(path), options=INPUT_OPTIONS) as source:
            for packet in source.demux(source.streams.video[0]):
                if packet.size == 0:
                    continue  # the demuxer's mark at the end
                _place(packet, path, num_frames, base, seen, fps)
                packet.stream = stream
                yield packet
                seen += 1
    except (av.FFmpegError, IndexError) as error:
        raise SegmentError(f"joining segment {path.name}: {error}") from error
    if seen != num_frames:
        raise SegmentError(f"joining segment {path.name}: it has {seen} frames, not {num_frames}")


def _place(packet: Any, path: Path, num_frames: int, base: int, seen: int, fps: Fraction) -> None:
    """Give a packet its place in the whole video."""
    local = packet.pts * packet.time_base * fps
    if local.denominator != 1 or not 0 <= local < num_frames:
        raise SegmentError(f"joining segment {path.name}: a frame lies at {local}")
    if seen == 0 and not packet.is_keyframe:
        raise SegmentError(f"joining segment {path.name}: it does not begin with a keyframe")
    packet.time_base = 1 / fps
    packet.pts = base + int(local)
    packet.dts = base + seen - REORDER_DELAY
    packet.duration = 1
    if packet.dts > packet.pts:
        raise SegmentError(f"joining segment {path.name}: its frames are reordered too far")


def _audio_packets(source: Any, stream: Any) -> Iterator[tuple[Fraction, int, Any]]:
    for packet in source.demux(source.streams.audio[0]):
        if packet.size == 0:
            continue
        time = packet.dts * packet.time_base
        packet.stream = stream
        yield time, 1, packet
