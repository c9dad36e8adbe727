"""Small media made on the spot, with known content: tones, clicks, files in many formats."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asha_ray import ffmpeg

Samples = NDArray[np.float32]


def tone(
    seconds: float, sample_rate: int = 44100, hertz: float = 220.0, num_channels: int = 1
) -> Samples:
    """A sine at half of full scale: `[n]`, or `[n, c]` with each channel an octave higher."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    channels = [0.5 * np.sin(2 * np.pi * hertz * 2**c * time_s) for c in range(num_channels)]
    return np.stack(channels, axis=1).astype(np.float32).squeeze()


def clicks(seconds: float, times: list[float], sample_rate: int = 44100) -> Samples:
    """Short bursts of noise `[n]` that begin at `times`, on silence."""
    rng = np.random.default_rng(7)
    samples = np.zeros(round(seconds * sample_rate))
    length = sample_rate // 30
    burst = rng.uniform(-0.7, 0.7, length) * np.exp(-np.arange(length) / (length / 6))
    for time_s in times:
        start = round(time_s * sample_rate)
        samples[start : start + length] += burst[: len(samples) - start]
    return samples.astype(np.float32)


def music(seconds: float = 6.0, sample_rate: int = 44100, num_channels: int = 1) -> Samples:
    """Two clicks a second over a quiet tone, their strength changing: `[n]` or `[n, c]`."""
    beats = clicks(seconds, list(np.arange(0.25, seconds - 0.1, 0.5)), sample_rate)
    swell = 0.6 + 0.4 * np.sin(np.arange(len(beats)) / sample_rate)
    mono = beats * swell + 0.1 * tone(seconds, sample_rate)
    if num_channels == 1:
        return mono.astype(np.float32)
    sides = [mono * (1 - 0.3 * c) for c in range(num_channels)]
    return np.stack(sides, axis=1).astype(np.float32)


def write_sound(path: Path, samples: Samples, sample_rate: int = 44100, **options: str) -> Path:
    """Write a sound file whose suffix libsndfile knows: wav, flac, mp3, ogg."""
    soundfile.write(str(path), samples, sample_rate, **options)
    return path


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run the bundled ffmpeg, which must succeed."""
    command = [ffmpeg.executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def convert(source: Path, target: Path, *options: str) -> Path:
    """Convert a media file with the bundled ffmpeg."""
    run_ffmpeg("-i", f"file:{source}", *options, f"file:{target}")
    return target


def decode_with_ffmpeg(path: Path, num_channels: int = 1, sample_rate: int = 44100) -> Samples:
    """What ffmpeg itself hears in a file: `[n, c]`, edit lists honoured."""
    command = [
        *(ffmpeg.executable(), "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a:0"),
        *("-ac", str(num_channels), "-ar", str(sample_rate), "-f", "f32le", "pipe:1"),
    ]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return np.frombuffer(done.stdout, "<f4").reshape(-1, num_channels)


def describe(path: Path) -> str:
    """What ffmpeg prints about a file."""
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-i", f"file:{path}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


BT709 = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "range": "tv"}


def silent_video(
    path: Path,
    *options: str,
    seconds: float = 0.4,
    tags: Mapping[str, str] = BT709,
    filters: str = "null",
) -> Path:
    """A small test picture as video, without sound, its index at the front; tagged as told."""
    source = f"testsrc=size=64x48:rate=30:duration={seconds},format=yuv420p,{filters}"
    if tags:
        source += ",setparams=" + ":".join(f"{key}={value}" for key, value in tags.items())
    faststart = ("-movflags", "+faststart")
    run_ffmpeg("-f", "lavfi", "-i", source, *faststart, *options, f"file:{path}")
    return path
