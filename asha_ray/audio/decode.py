"""The one gate through which sound comes in.

libsndfile reads what it can (WAV, FLAC, Ogg, MP3 …: it is what librosa reads with, so the samples
are the same), ffmpeg all the rest. What decodes counts; a header's length is never believed.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from asha_ray import ffmpeg
from asha_ray.audio.packets import REMEDY, packet_duration
from asha_ray.errors import AudioError
from asha_ray.values import MAX_SAMPLE_RATE, AudioClip, FloatArray, PcmStream

BLOCK_SAMPLES = 1 << 18
MIN_SAMPLE_RATE = 1_000
MAX_CHANNELS = 64
MAX_LEVEL = 1e4
AU_FLOAT32 = 6

MP3 = "MP3"
"""What soundfile calls the format."""
GUESS_S = 0.25
"""By so much an MP3's guessed length may be short before its rest is read in another way."""


def stream_audio(path: str | Path) -> PcmStream:
    """Open a sound file for reading block by block, in all its channels.

    Args:
        path: a local file; of a video, its first audio stream is read.

    Raises:
        AudioError: if nothing in it can be decoded as sound.
    """
    path = Path(path)
    require_sound_file(path)
    try:
        stream = _stream_soundfile(path)
    except (soundfile.LibsndfileError, TypeError, ValueError):
        stream = _stream_ffmpeg(path)
    _check_format(path, stream)  # first: a block of a thousand channels would be a gigabyte
    first = next(stream.blocks, None)
    if first is None:
        raise AudioError(f"reading audio {path}: it holds no samples; {REMEDY}")
    return PcmStream(stream.sample_rate, stream.num_channels, chain([first], stream.blocks))


def load_audio(path: str | Path) -> AudioClip:
    """Decode a whole sound file, mixed to one channel.

    NaN and infinite samples become silence and are counted in `num_replaced`.

    Raises:
        AudioError: if nothing in it can be decoded as sound.
    """
    stream = stream_audio(path)
    mono, num_replaced = [], 0
    for block in stream.blocks:
        clean, replaced = replace_damage(block)
        mono.append(clean.mean(axis=1, dtype=np.float32))
        num_replaced += replaced
    return AudioClip(np.concatenate(mono), stream.sample_rate, num_replaced)


def heard_blocks(path: str | Path, start: float, duration: float) -> PcmStream:
    """The samples that are heard from `start` for `duration` seconds, damage replaced by silence.

    Boundaries are rounded to whole samples.
    """
    stream = stream_audio(path)
    first = round(start * stream.sample_rate)
    last = first + round(duration * stream.sample_rate)
    blocks = (replace_damage(part)[0] for part in _cut(stream.blocks, first, last))
    return PcmStream(stream.sample_rate, stream.num_channels, blocks)


def _cut(blocks: Iterator[FloatArray], first: int, last: int | None) -> Iterator[FloatArray]:
    position = 0
    for block in blocks:
        end = len(block) if last is None else max(0, last - position)
        part = block[max(0, first - position) : end]
        position += len(block)
        if len(part):
            yield part
        if last is not None and position >= last:
            return


def replace_damage(block: FloatArray) -> tuple[FloatArray, int]:
    """A block with NaN, infinite and absurd samples as silence, and how many those were."""
    # Levels of 80 dB over full scale are damage too; squared they would overflow float32.
    good = np.abs(block) <= MAX_LEVEL
    num_damaged = block.size - int(np.count_nonzero(good))
    return (np.where(good, block, np.float32(0)) if num_damaged else block), num_damaged


def require_sound_file(path: Path) -> None:
    """Make sure that there is a file with something in it, before anything else is done with it.

    Raises:
        AudioError: if there is not.
    """
    if path.is_dir():
        raise AudioError(f"reading audio {path}: it is a folder; {REMEDY}")
    if not path.exists():
        raise AudioError(f"reading audio {path}: there is no such file; check the path")
    if not path.is_file():  # a pipe may wait for its writer for ever, a device may never end
        raise AudioError(f"reading audio {path}: it is no regular file; {REMEDY}")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise AudioError(
            f"reading audio {path}: {error.strerror}; check its permissions"
        ) from error
    if empty:
        raise AudioError(f"reading audio {path}: the file is empty; {REMEDY}")


def _check_format(path: Path, stream: PcmStream) -> None:
    if not MIN_SAMPLE_RATE <= stream.sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"reading audio {path}: a sample rate of {stream.sample_rate} Hz is outside "
            f"{MIN_SAMPLE_RATE}..{MAX_SAMPLE_RATE}; convert it to 44100 Hz"
        )
    if not 1 <= stream.num_channels <= MAX_CHANNELS:
        raise AudioError(
            f"reading audio {path}: {stream.num_channels} channels are more than {MAX_CHANNELS}; "
            "mix it down first"
        )


def _stream_soundfile(path: Path) -> PcmStream:
    if path.suffix.lower() == ".mp3" and not _begins_like_mp3(path):
        # libsndfile would believe the name, and its MP3 decoder complain on stderr.
        raise ValueError("not an MP3 file")
    file = soundfile.SoundFile(str(path.absolute()))

    def blocks() -> Iterator[FloatArray]:
        num_read = 0
        with file:
            while True:
                try:
                    block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError:
                    break
                if not len(block):
                    if num_read >= file.frames and not _is_guess(path, file, num_read):
                        return
                    break  # it stopped early without a word
                num_read += len(block)
                yield block
        # libsndfile gave up inside a damaged file; ffmpeg steps over damage and goes on.
        try:
            rest = _stream_ffmpeg(path)
        except AudioError:
            if num_read:
                return
            raise
        if (rest.sample_rate, rest.num_channels) == (file.samplerate, file.channels):
            yield from _cut(rest.blocks, num_read, None)

    return PcmStream(file.samplerate, file.channels, blocks())


def _is_guess(path: Path, file: soundfile.SoundFile, num_read: int) -> bool:
    """Whether a file holds more than libsndfile believed.

    Of an MP3 without a table of contents it takes the first bit rate for that of all.
    """
    if file.format != MP3:
        return False
    try:
        return packet_duration(path) - Fraction(num_read, file.samplerate) > GUESS_S
    except AudioError:
        return False


def _begins_like_mp3(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(3)
    return head == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def _stream_ffmpeg(path: Path) -> PcmStream:
    # An .au stream begins with a header of sample rate and channels, so one run tells all.
    program = ffmpeg.Program(
        [
            *ffmpeg.input_arguments(path),
            *("-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
        ],
        stdout=True,
    )
    header = _read_exactly(program, 24)
    fields = np.frombuffer(header, ">u4")
    if len(fields) < 6 or header[:4] != b".snd" or fields[3] != AU_FLOAT32:
        program.finish()
        reason = program.last_words()
        program.close()
        raise AudioError(f"reading audio {path}: it cannot be decoded ({reason}); {REMEDY}")
    _read_exactly(program, int(fields[1]) - 24)
    sample_rate, num_channels = int(fields[4]), int(fields[5])

    def blocks() -> Iterator[FloatArray]:
        with program:
            while data := _read_exactly(program, BLOCK_SAMPLES * num_channels * 4):
                whole = len(data) - len(data) % (4 * num_channels)
                samples = np.frombuffer(data[:whole], ">f4").astype(np.float32)
                if whole:
                    yield samples.reshape(-1, num_channels)

    return PcmStream(sample_rate, num_channels, blocks())


def _read_exactly(program: ffmpeg.Program, num_bytes: int) -> bytes:
    parts = []
    while num_bytes > 0 and (part := program.stdout.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)
