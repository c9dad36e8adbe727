"""Frames to a segment: one ffmpeg per chunk, fed through a bounded queue.

Every segment of a render is made with the same settings, by the same build, with closed groups of
pictures and no sound, so that segments can be joined without encoding again.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from asha_ray import ffmpeg
from asha_ray.errors import EncodeError
from asha_ray.values import ByteArray, EncoderSettings, Size
from asha_ray.video.codecs import arguments as _codec_arguments

QUEUE_BATCHES = 4
GOP_SECONDS = 2

COLOUR = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


def encode_segment(
    batches: Iterable[ByteArray], path: Path, size: Size, fps: Fraction, settings: EncoderSettings
) -> int:
    """Encode 4:2:0 frames into an mp4 segment, while the next ones are being made.

    Args:
        batches: `[frames, H * W * 3 / 2]` uint8.
        path: where the segment goes, a local file.
        size: width and height.
        fps: frames per second.
        settings: codec and quality.

    Returns:
        The number of frames.

    Raises:
        EncodeError: if ffmpeg fails, with its last words.
    """
    with ffmpeg.Program(_arguments(path, size, fps, settings), stdin=True) as program:
        ffmpeg.widen_pipe(program.stdin)
        feeder = _Feeder(program)
        try:
            num_frames = feeder.feed(batches)
        finally:
            feeder.stop()
        exit_code = program.finish()
        if exit_code != 0 or feeder.broken:
            raise EncodeError(
                f"encoding {num_frames} frames of {size[0]}x{size[1]} with {settings.codec}: "
                f"ffmpeg ended with code {exit_code}: {program.last_words()}"
            ) from feeder.broken
    return num_frames


class _Feeder:
    """Writes frames to ffmpeg from a thread, so that the decoder never waits for the encoder."""

    def __init__(self, program: ffmpeg.Program) -> None:
        self._program = program
        self._queue: queue.Queue[ByteArray | None] = queue.Queue(QUEUE_BATCHES)
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def feed(self, batches: Iterable[ByteArray]) -> int:
        num_frames = 0
        for batch in batches:
            if self.broken:
                break
            if not len(batch):
                continue
            self._queue.put(batch)
            num_frames += len(batch)
        return num_frames

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        for batch in self._taken():
            if self.broken:
                continue  # keep emptying the queue: whoever fills it must not block for ever
            try:
                view = np.ascontiguousarray(batch).data.cast("B")
                while view:
                    view = view[self._program.stdin.write(view) :]
            except Exception as error:  # noqa: BLE001 (told where frames are fed)
                self.broken = error

    def _taken(self) -> Iterator[ByteArray]:
        while (batch := self._queue.get()) is not None:
            yield batch


def _arguments(path: Path, size: Size, fps: Fraction, settings: EncoderSettings) -> list[str]:
    return [
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{size[0]}x{size[1]}"),
        *("-framerate", str(fps), *COLOUR, "-color_range", "tv", "-i", "pipe:0"),
        *("-an", "-c:v", settings.codec, "-g", str(max(1, round(fps * GOP_SECONDS)))),
        *_codec_arguments(settings),
        *("-pix_fmt", "yuv420p", *COLOUR, "-color_range", "tv", "-chroma_sample_location", "left"),
        *("-fps_mode", "passthrough", "-enc_time_base", f"{fps.denominator}/{fps.numerator}"),
        *("-f", "mp4", "-y", ffmpeg.file_url(path)),
    ]
