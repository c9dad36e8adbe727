"""The sound of a video: encoded once for the whole track, from the samples that were analysed."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from asha_ray import ffmpeg
from asha_ray.errors import EncodeError
from asha_ray.values import PcmStream

BITRATE_PER_CHANNEL = 96_000
AAC_CHANNELS = (1, 2, 6, 8)
"""Channel counts with a layout of their own in AAC; others are mixed down to stereo."""


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
