"""Frames of a chunk: the same bytes wherever a chunk begins, whatever shares a batch."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from asha_ray.values import Chunk
from asha_ray.video.batches import chunk_latents, padded_range
from asha_ray.video.frames import render_frames

SIZE = (8, 4)


@dataclass
class Curve:
    """A path whose latents are the frame's number."""

    num_frames: int
    latent_dim: int = 2

    def latents(self, start, stop):
        assert 0 <= start <= stop <= self.num_frames, "asked for frames that do not exist"
        frames = np.arange(start, stop, dtype=np.float32)
        return np.stack([frames, -frames], axis=1)


class Moody:
    """Its pictures depend on the whole batch: on its first latent, its length, and the place in it.

    Real decoders do so too, in the last bits.
    """

    latent_dim = 2
    image_size = SIZE

    def __init__(self, batch_size):
        self.batch_size = batch_size
        self.seen = []

    def decode(self, latents):
        assert len(latents) == self.batch_size, "a batch that is not whole"
        self.seen.append(latents[:, 0].tolist())
        frames = torch.from_numpy(latents[:, 0])
        mood = 0.3 * torch.arange(len(latents)) + 0.7 * frames[0]
        values = (frames * 0.37 + mood) % 1.0
        texture = torch.linspace(0, 0.2, SIZE[0] * SIZE[1] * 3).reshape(3, SIZE[1], SIZE[0])
        return (values[:, None, None, None] + texture).clamp(0, 1)


def _render(path, chunk, batch_size, size=SIZE, fit="crop"):
    latents = chunk_latents(path, chunk, batch_size)
    batches = render_frames(
        Moody(batch_size), latents, chunk, batch_size=batch_size, size=size, fit=fit
    )
    return [np.array(batch) for batch in batches]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize(("length", "first"), [(1, 0), (5, 0), (8, 7), (100, 7)])
def test_chunk_bounds_never_change_a_byte(batch_size, length, first):
    """Batches that began with the chunk would differ at every other chunk length."""
    path = Curve(41)
    whole = np.concatenate(_render(path, Chunk(0, 0, 41), batch_size))
    pieces = [
        np.concatenate(_render(path, Chunk(0, start, min(start + length, 41)), batch_size))
        for start in range(first, 41, length)
    ]
    found = np.concatenate(pieces)
    assert found.tobytes() == whole[first:].tobytes()
    assert len(np.unique(whole, axis=0)) > 20, "the pictures are all alike: the test is blind"


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 41), (3, 4), (5, 17), (40, 41), (16, 32)])
def test_a_chunk_has_exactly_its_frames(batch_size, start, stop):
    batches = _render(Curve(41), Chunk(0, start, stop), batch_size)
    assert sum(len(batch) for batch in batches) == stop - start
    assert all(len(batch) for batch in batches), "an empty batch stops the encoder's feeder"
    assert {batch.shape[1] for batch in batches} == {SIZE[0] * SIZE[1] * 3 // 2}
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    assert all(batch.flags.c_contiguous for batch in batches)


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5, 17), (40, 41)])
def test_batches_lie_on_a_grid_over_the_whole_track(batch_size, start, stop):
    first, last = padded_range(Chunk(0, start, stop), batch_size)
    assert first % batch_size == last % batch_size == 0
    assert start - batch_size < first <= start
    assert stop <= last < stop + batch_size


def test_the_last_batch_is_filled_with_the_last_frame():
    """A shorter last batch would be computed by other kernels, and differ."""
    latents = chunk_latents(Curve(10), Chunk(0, 6, 10), 8)
    assert latents[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9]
    assert latents.dtype == np.float32


def test_a_batch_that_reaches_past_the_chunk_holds_the_tracks_own_frames():
    """Padding at a chunk's end, inside the track, would make its frames depend on the chunk."""
    latents = chunk_latents(Curve(100), Chunk(0, 6, 10), 8)
    assert latents[:, 0].tolist() == list(range(16))


def test_each_frame_is_decoded_once_and_at_its_turn():
    generator = Moody(4)
    path, chunk = Curve(10), Chunk(0, 3, 9)
    frames = render_frames(
        generator, chunk_latents(path, chunk, 4), chunk, batch_size=4, size=SIZE, fit="crop"
    )
    next(frames)
    assert generator.seen == [[0, 1, 2, 3]], "all batches were decoded before the first was asked"
    list(frames)
    assert generator.seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]


def test_frames_are_fitted_to_the_videos_size():
    batches = _render(Curve(5), Chunk(0, 0, 5), 4, size=(16, 16), fit="pad")
    frames = np.concatenate(batches)
    assert frames.shape == (5, 16 * 16 * 3 // 2)
    luma = frames[:, :256].reshape(5, 16, 16)
    assert (luma[:, 0] == 16).all(), "the border is not black"
    assert (luma[:, 8] > 16).any()
