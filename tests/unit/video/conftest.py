"""Small raw frames, and what turns them into segments."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from asha_ray import ffmpeg
from asha_ray.values import EncoderSettings
from asha_ray.video.encode import encode_segment

SIZE = (64, 48)
RATES = [Fraction(24), Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(60)]


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


@pytest.fixture
def make_segments(tmp_path):
    """Encodes frames cut at `bounds` into segments, as `stitch` takes them."""

    def make(frames, bounds, fps, size=SIZE, **changes):
        segments = []
        for index, (start, stop) in enumerate(itertools.pairwise(bounds)):
            path = tmp_path / f"segment-{index}.mp4"
            batches = [frames[at : min(at + 4, stop)] for at in range(start, stop, 4)]
            count = encode_segment(batches, path, size, fps, settings(**changes))
            assert count == stop - start
            segments.append((path, count))
        return segments

    return make
