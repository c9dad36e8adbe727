"""The values that flow from stage to stage.

Shape legend: n video frames, k beats, m frames of a chunk, c audio channels, L latent dimensions.
All are frozen: a stage returns a new value and changes none.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float32]
TimeArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
FlagArray = NDArray[np.bool_]

Normalisation = Literal["track", "rolling"]

MAX_SAMPLE_RATE = 768_000
"""Hz; what is sampled faster is refused."""

MAX_ARTWORK_BYTES = 10 << 20
"""Of a picture that a recording carries; a larger one is left out."""

Size = tuple[int, int]
"""Width and height of a picture in pixels, in the order in which `1920x1080` is written."""


def num_frames_of(duration_s: Fraction, fps: Fraction) -> int:
    """Video frames that cover `duration_s` seconds: `ceil(duration * fps)`, computed exactly."""
    return ceil(duration_s * fps)


def words_in(text: str) -> list[str]:
    """Its runs of letters and digits, each with the marks that are on it.

    >>> words_in("Don't stop: हिन्दी_12")
    ['Don', 't', 'stop', 'हिन्दी', '12']
    """
    kept = [" "]
    for char in text:
        # Vowel signs of Indian scripts are marks, which isalnum does not count.
        is_on_letter = kept[-1] != " " and unicodedata.category(char).startswith("M")
        kept.append(char if char.isalnum() or is_on_letter else " ")
    return "".join(kept).split()


@dataclass(frozen=True)
class AudioClip:
    """A whole track mixed to one channel.

    Attributes:
        samples: `[num_samples]` float32, nominally in -1..1.
        sample_rate: Hz.
        num_replaced: samples that were NaN or infinite and are now silence.
    """

    samples: FloatArray
    sample_rate: int
    num_replaced: int = 0

    @property
    def duration_s(self) -> Fraction:
        """Length in seconds, exactly: what decoded, whatever a header claims."""
        return Fraction(len(self.samples), self.sample_rate)


@dataclass(frozen=True)
class PcmStream:
    """Decoded sound, block by block, in all its channels.

    Attributes:
        sample_rate: Hz.
        num_channels: channels of every block.
        blocks: yields `[samples, c]` float32; can be read once.
    """

    sample_rate: int
    num_channels: int
    blocks: Iterator[FloatArray]


@dataclass(frozen=True)
class Chapter:
    """A part of a recording that has a name of its own; it lasts until the next."""

    start_s: float
    title: str


@dataclass(frozen=True)
class Tags:
    """What a recording says of itself, or what is said of it elsewhere; empty where nothing is.

    Attributes:
        title: of the recording.
        artist: whose it is.
        album: what it is a part of.
        date: `2023-05-01`, or only the year, or the year and the month.
        chapters: in order.
        artwork: a picture, JPEG or PNG; of 10 MB at most.
    """

    title: str = ""
    artist: str = ""
    album: str = ""
    date: str = ""
    chapters: tuple[Chapter, ...] = ()
    artwork: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Features:
    """What a track does, frame by frame of the video to come.

    Attributes:
        fps: frames per second of the arrays, exact.
        duration_s: length of the sound in seconds.
        onset_strength: `[n]` in 0..1, maximum 1 unless the track is silent.
        beat_frames: `[k]` frame numbers, ascending.
        beat_times: `[k]` seconds.
        tempo: beats per minute, 0 where none was found.
        decay_linear: `[n]` beat envelope with linear decay, in 0..1.
        decay_exponential: `[n]` beat envelope with exponential decay, in 0..1.
        rms: `[n]` root mean square level, in 0..1 of full scale.
        bands: `[n, 3]` levels of low, middle and high frequencies, each 0..1 of its own maximum.
        chroma: `[n, 12]` pitch classes from C up, each frame's strongest 1, or all 0 in silence;
            empty where it was not measured, as all that follows.
        centroid: `[n]` Hz, where the middle of the spectrum lies; 0 in silence.
        section_times: `[a]` seconds at which something new begins within the music.
        track_times: `[b]` seconds at which another track of a mix begins.
        speech: `[s]` whether somebody speaks, for each second.
        silence: `[s]` whether nothing is heard, for each second.
        stems: the same of each stem that was listened to, by its name.
    """

    fps: Fraction
    duration_s: float
    onset_strength: FloatArray
    beat_frames: IndexArray
    beat_times: TimeArray
    tempo: float
    decay_linear: FloatArray
    decay_exponential: FloatArray
    rms: FloatArray
    bands: FloatArray
    chroma: FloatArray = field(default_factory=lambda: np.zeros((0, 12), np.float32))
    centroid: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    section_times: TimeArray = field(default_factory=lambda: np.zeros(0))
    track_times: TimeArray = field(default_factory=lambda: np.zeros(0))
    speech: FlagArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    silence: FlagArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    stems: Mapping[str, "Features"] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Number of video frames n."""
        return len(self.onset_strength)

    @property
    def exact_duration_s(self) -> Fraction:
        """Length of the sound in seconds, exactly: a whole number of samples."""
        # A sample rate is a small denominator, so the float names one such fraction only.
        return Fraction(self.duration_s).limit_denominator(MAX_SAMPLE_RATE)

    @property
    def onset_info(self) -> NDArray[np.float64]:
        """The article's array `[n, 3]`: frame number, time in seconds, onset strength."""
        frames = np.arange(self.num_frames, dtype=np.float64)
        return np.column_stack([frames, frames * float(1 / self.fps), self.onset_strength])


class LatentPath(Protocol):
    """A way through latent space, computed where it is asked for."""

    @property
    def num_frames(self) -> int:
        """Frames of the whole track."""

    @property
    def latent_dim(self) -> int:
        """Latent dimensions L."""

    def latents(self, start: int, stop: int) -> FloatArray:
        """The latents `[stop - start, L]` of frames `start` up to `stop`, exclusive."""


class Generator(Protocol):
    """Anything that turns latents into pictures; the renderer knows no more of a model."""

    @property
    def latent_dim(self) -> int:
        """Latent dimensions L."""

    @property
    def image_size(self) -> Size:
        """Width and height of what `decode` returns."""

    def decode(self, latents: FloatArray) -> "torch.Tensor":
        """Pictures `[m, 3, H, W]`, RGB in 0..1, float, on the generator's device."""


class ImageEncoder(Protocol):
    """A generator that can also find the latent of a picture."""

    def encode(self, images: FloatArray) -> FloatArray:
        """Latents `[m, L]` of RGB pictures `[m, H, W, 3]` in 0..1."""


@dataclass(frozen=True)
class Chunk:
    """A half-open range of video frames, rendered as one piece.

    Attributes:
        index: position in the render, from 0.
        start: first frame, counted from the start of the track.
        stop: frame after the last.
        chunk_id: hash of everything that determines the content.
    """

    index: int
    start: int
    stop: int
    chunk_id: str = ""

    @property
    def num_frames(self) -> int:
        """Frames in this chunk."""
        return self.stop - self.start


@dataclass(frozen=True)
class Segment:
    """A chunk's finished video, as its record in storage tells it.

    Attributes:
        chunk_id: the chunk it shows.
        sha256: of the file.
        num_bytes: of the file.
        num_frames: in the file.
        seconds: that decoding and encoding took.
        worker: where that happened.
    """

    chunk_id: str
    sha256: str
    num_bytes: int
    num_frames: int
    seconds: float
    worker: str


@dataclass(frozen=True)
class Numerics:
    """What could make two machines compute different frames, resolved once per render.

    Attributes:
        device: `cpu`, `cuda` or `mps`.
        dtype: `float32`, `bfloat16` or `float16`.
        channels_last: memory layout of the decoder.
        batch_size: frames decoded together; batches lie on a grid over the whole track.
        threads: threads of one decoder (CPU); 0 leaves them as they are. How many decoders run
            beside one another changes no frame, and is not recorded.
        torch_version: build of torch.
        kind: kind of device, such as `cpu-avx512-bf16` or `cuda-sm90`.
        compile: `none`, or the mode of `torch.compile`.
    """

    device: str
    dtype: str
    channels_last: bool
    batch_size: int
    threads: int = 0
    torch_version: str = ""
    kind: str = ""
    compile: str = "none"


@dataclass(frozen=True)
class EncoderSettings:
    """How frames become a segment; identical for every segment of a render.

    Attributes:
        codec: the ffmpeg encoder.
        crf: constant rate factor, 0 is lossless with libx264.
        preset: the encoder's speed preset.
        threads: encoder threads; x264's output depends on them.
        version: the ffmpeg build.
    """

    codec: str
    crf: int
    preset: str
    threads: int
    version: str


@dataclass(frozen=True)
class Manifest:
    """All that one render is, written before its first frame.

    Attributes:
        render_id: hash of everything that determines the video.
        spec: the resolved spec, as plain data.
        digests: sha256 of audio, model, features and keyframes.
        fps: frames per second, exact.
        size: width and height of the video.
        numerics: how the decoder computes.
        encoder: how segments are encoded.
        start: first frame, counted from the start of the track.
        num_frames: frames of the video.
        duration_s: seconds of sound, exact.
        chunks: every frame is in exactly one of them.
    """

    render_id: str
    spec: Mapping[str, Any]
    digests: Mapping[str, str]
    fps: Fraction
    size: Size
    numerics: Numerics
    encoder: EncoderSettings
    start: int
    num_frames: int
    duration_s: Fraction
    chunks: tuple[Chunk, ...] = field(default=())


def plan_chunks(start: int, num_frames: int, fps: Fraction, chunk_s: float) -> tuple[Chunk, ...]:
    """Cut `num_frames` frames from `start` on into chunks of `round(chunk_s * fps)` frames.

    >>> [(c.start, c.stop) for c in plan_chunks(0, 150, Fraction(60), 1.0)]
    [(0, 60), (60, 120), (120, 150)]
    """
    length = max(1, round(Fraction(str(chunk_s)) * fps))
    stop = start + num_frames
    return tuple(
        Chunk(index, first, min(first + length, stop))
        for index, first in enumerate(range(start, stop, length))
    )
