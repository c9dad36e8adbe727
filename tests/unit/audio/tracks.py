"""Tracks that are told apart by their chords, their overtones and the colour of their noise."""

import functools

import numpy as np

from asha_ray.audio.blocks import iter_blocks, stream_of_clip
from asha_ray.audio.measure import measure_block
from asha_ray.audio.merge import merge_blocks
from asha_ray.values import AudioClip

RATE = 16_000


def _overtones(phase, count, tilt):
    """The sum over k of sin(k * phase) / k ** tilt; one sine from the two before it."""
    twice_cos, before, sine = 2 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = sine.copy()
    for k in range(2, count + 1):
        before, sine = sine, twice_cos * sine - before
        total += sine * np.float32(k**-tilt)
    return total


@functools.cache
def track(seconds, seed):
    """Two alternating chords of one set of overtones, and noise of one colour."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(seconds * RATE) / RATE
    root, tilt = 80 * 2 ** rng.uniform(0, 1.5), rng.uniform(0.5, 2.5)
    step = np.array([1, 2 ** (rng.integers(3, 8) / 12)])[(time_s // 2).astype(int) % 2]
    turns = (root * step * time_s) % 1
    sound = _overtones((2 * np.pi * turns).astype(np.float32), rng.integers(4, 24), tilt)
    noise = rng.standard_normal(len(time_s), np.float32)
    if rng.random() < 0.5:
        noise = np.cumsum(noise)
    noise = np.diff(noise, prepend=0) * np.exp(-((time_s * rng.uniform(1, 3)) % 1) * 9)
    sound = 0.2 * sound / sound.std() + rng.uniform(0.02, 0.2) * noise / max(noise.std(), 1e-6)
    sound *= 0.7 + 0.3 * ((time_s // 8) % 2)
    sound.flags.writeable = False
    return sound


def faded(sound, fade_s):
    """Its last seconds ever softer."""
    left_s = np.arange(len(sound), 0, -1) / RATE
    return sound * np.clip(left_s / fade_s, 0, 1) if fade_s else sound


def curves(samples):
    pcm = stream_of_clip(AudioClip(samples.astype(np.float32), RATE))
    return merge_blocks(map(measure_block, iter_blocks(pcm)), RATE)
