"""Small raw frames, and what turns them into segments."""

import itertools
import shutil
from fractions import Fraction

import numpy as np
import pytest

from asha_ray import ffmpeg
from asha_ray.values import EncoderSettings
from asha_ray.video.encode import encode_segment

SIZE = (64, 48)
NTSC = Fraction(30000, 1001)
RATES = [Fraction(24), Fraction(25), Fraction(30), NTSC, Fraction(60)]


def settings(**changes):
    given = {"codec": "libx264", "crf": 20, "preset": "ultrafast", "threads": 1} | changes
    return EncoderSettings(**given, version=ffmpeg.version())


def moving_frames(num_frames, size=SIZE):
    """Frames `[n, H * W * 3 / 2]` of a drifting pattern with a little noise, each its own."""
    width, height = size
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width]
    frames = np.full((num_frames, height * width * 3 // 2), 128, np.uint8)
    noise = rng.integers(0, 20, (height, width))
    for index in range(num_frames):
        wave = 100 + 60 * np.sin(x / 7 + index / 3) + 30 * np.cos(y / 5 - index / 4) + noise
        frames[index, : height * width] = wave.clip(16, 235).astype(np.uint8).ravel()
    return frames


@pytest.fixture(scope="session")
def encoded(tmp_path_factory):
    """Encodes frames into a segment, once for all tests of the process that want the same."""
    folder, known = tmp_path_factory.mktemp("segments"), {}

    def encode(frames, fps, size, **changes):
        key = (frames.tobytes(), fps, size, *sorted(changes.items()))
        if key not in known:
            path = folder / f"{len(known)}.mp4"
            batches = [frames[at : at + 4] for at in range(0, len(frames), 4)]
            assert encode_segment(batches, path, size, fps, settings(**changes)) == len(frames)
            known[key] = path
        return known[key]

    return encode


@pytest.fixture
def make_segments(encoded, tmp_path):
    """Encodes frames cut at `bounds` into segments, as `stitch` takes them."""

    def make(frames, bounds, fps, size=SIZE, **changes):
        segments = []
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            source = encoded(frames[start:stop], fps, size, **changes)
            path = shutil.copyfile(source, tmp_path / f"segment-{index}.mp4")
            segments.append((path, stop - start))
        return segments

    return make
