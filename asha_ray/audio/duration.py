"""How long a sound file is, told without decoding it."""

from fractions import Fraction
from pathlib import Path

import soundfile

from asha_ray.audio.decode import MP3, require_sound_file
from asha_ray.audio.packets import packet_duration


def counted_duration(path: Path) -> Fraction:
    """Seconds of sound: its samples, as libsndfile counts them, or those of ffmpeg's packets.

    A header may lie and packets may be damaged: what decodes is known when it was listened to.

    Raises:
        AudioError: if it cannot be read as sound.
    """
    require_sound_file(path)
    try:
        info = soundfile.info(str(path.absolute()))
    except (soundfile.LibsndfileError, TypeError, ValueError):
        return packet_duration(path)
    # An MP3's frames are guessed from its first bit rate, where no header tells them.
    if info.frames <= 0 or info.samplerate <= 0 or info.format == MP3:
        return packet_duration(path)
    return Fraction(info.frames, info.samplerate)
