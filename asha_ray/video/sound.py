"""The sound of a video: encoded once for the whole track, or copied as it is.

It is encoded from the samples that were analysed. A copy is another decoder's reading of the same
file, so it counts only where its packets lie where those samples were heard.
"""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from asha_ray import ffmpeg
from asha_ray.errors import EncodeError
from asha_ray.values import PcmStream

BITRATE_PER_CHANNEL = 96_000
AAC_CHANNELS = (1, 2, 6, 8)
"""Channel counts with a layout of their own in AAC; others are mixed down to stereo."""

COPIED = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
"""Codecs that an mp4 takes and players look for there."""
MAX_DRIFT_S = Fraction(20, 1000)
"""Between a packet's time and the length of all before it. Matroska rounds times to milliseconds,
and within a page of Ogg some are 10 ms off."""
MAX_MISSING_S = Fraction(5, 1000)
MAX_PADDING_S = Fraction(100, 1000)
"""By which a copy may fall short of the sound that was heard, and go beyond it: encoders fill up
their last packets, and some containers say how far."""


def encode_audio(pcm: PcmStream, path: Path) -> None:
    """Encode sound as AAC into a local `.m4a` file.

    Raises:
        EncodeError: if ffmpeg fails, with its last words.
    """
    num_channels = pcm.num_channels if pcm.num_channels in AAC_CHANNELS else 2
    arguments = [
        *("-f", "f32le", "-ar", str(pcm.sample_rate), "-ac", str(pcm.num_channels), "-i", "pipe:0"),
        *("-c:a", "aac", "-ac", str(num_channels), "-b:a", str(BITRATE_PER_CHANNEL * num_channels)),
        *("-map_metadata", "-1", "-f", "mp4", "-y", ffmpeg.file_url(path)),
    ]
    with ffmpeg.Program(arguments, stdin=True) as program:
        # A broken pipe means that ffmpeg has ended; its exit code and last words tell why.
        with suppress(OSError):
            for block in pcm.blocks:
                view = np.ascontiguousarray(block, "<f4").data.cast("B")
                while view:
                    view = view[program.stdin.write(view) :]
        exit_code = program.finish()
        if exit_code != 0:
            raise EncodeError(
                f"encoding the sound ({pcm.num_channels} channels at {pcm.sample_rate} Hz): "
                f"ffmpeg ended with code {exit_code}: {program.last_words()}"
            )


def copy_audio(source: Path, path: Path, duration_s: Fraction) -> str:
    """Put the first sound of a media file into a local `.m4a` file, packet by packet.

    What encoders put before the sound is left out by the times, as in the original; what they put
    after it is cut off at `duration_s`.

    Args:
        source: a local file, untrusted.
        path: where it goes.
        duration_s: seconds of sound that were heard in the source.

    Returns:
        The codec.

    Raises:
        EncodeError: if an mp4 does not take it, or it would not be heard as it was; encode it then.
    """
    what = f"copying the sound of {source.name}"
    try:
        with (
            av.open(
                ffmpeg.file_url(source),
                options=ffmpeg.INPUT_OPTIONS,
                metadata_errors="surrogateescape",  # tags, which are not copied, may be no UTF-8
            ) as media,
            av.open(ffmpeg.file_url(path), "w", format="mp4") as output,
        ):
            stream = media.streams.audio[0]
            codec: str = stream.codec_context.codec.canonical_name
            if codec not in COPIED:
                raise EncodeError(f"{what}: players do not look for {codec} in an mp4; encode it")
            copied = output.add_stream_from_template(stream)
            for packet in _in_time(media.demux(stream), stream, duration_s, what):
                packet.stream = copied
                output.mux(packet)
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise EncodeError(f"{what}: {error}; encode it") from error
    return codec


def _in_time(packets: Iterator[Any], stream: Any, duration_s: Fraction, what: str) -> Iterator[Any]:
    """The packets of a sound, their times counted in samples from where it begins."""
    context = stream.codec_context
    rate = context.sample_rate
    end = round(duration_s * rate)
    position = begin_s = None
    for packet in packets:
        if packet.size == 0:
            continue  # the demuxer's mark at the end
        if packet.pts is None or packet.is_corrupt:
            raise EncodeError(f"{what}: a packet has no time or is damaged; encode it")
        time_s = packet.pts * packet.time_base
        if position is None or begin_s is None:
            begin_s = time_s if stream.start_time is None else stream.start_time * packet.time_base
            position = round((time_s - begin_s) * rate)
        if abs(time_s - begin_s - Fraction(position, rate)) > MAX_DRIFT_S:
            raise EncodeError(f"{what}: its times leap at {position / rate:.3f} s; encode it")
        length = context.frame_size or round((packet.duration or 0) * packet.time_base * rate)
        if position < end:
            packet.time_base = Fraction(1, rate)
            packet.pts = packet.dts = position
            packet.duration = min(length, end - position)
            yield packet
        position += length
        if Fraction(position, rate) > duration_s + MAX_PADDING_S:
            raise EncodeError(
                f"{what}: it goes on after the {float(duration_s):.3f} s that were heard; encode it"
            )
    if Fraction(position or 0, rate) < duration_s - MAX_MISSING_S:
        raise EncodeError(
            f"{what}: it ends at {(position or 0) / rate:.3f} s, and {float(duration_s):.3f} s "
            "were heard; encode it"
        )
