"""How long a sound file's packets say that it is; none of them is decoded."""

from fractions import Fraction
from pathlib import Path

from asha_ray import ffmpeg
from asha_ray.errors import AudioError

REMEDY = "give a sound file such as WAV, FLAC, MP3, Ogg or M4A"


def packet_duration(path: Path) -> Fraction:
    """Seconds of sound in all packets of a file.

    Raises:
        AudioError: if it has none.
    """
    # Lines of framecrc: stream, dts, pts, duration in units of the time base, bytes, checksum.
    program = ffmpeg.Program(
        [
            *ffmpeg.input_arguments(path),
            *("-map", "0:a:0", "-vn", "-sn", "-dn", "-c", "copy", "-f", "framecrc", "pipe:1"),
        ],
        stdout=True,
    )
    unit, count = Fraction(0), 0
    with program:
        try:
            for line in program.stdout:
                if line.startswith(b"#tb 0:"):
                    unit = Fraction(line.partition(b":")[2].strip().decode())
                elif not line.startswith(b"#"):
                    count += int(line.split(b",")[3])
        except (ValueError, IndexError, ZeroDivisionError):
            count = 0
        program.finish()
        if not count * unit:
            raise AudioError(
                f"reading audio {path}: its packets tell no length ({program.last_words()}); "
                f"{REMEDY}"
            )
    return count * unit
