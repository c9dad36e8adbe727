"""The article's motion, against its formula written out with exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from asha_ray.errors import ModelError
from asha_ray.motion.seed import seed_path

RATES = [Fraction(60), Fraction(24), Fraction(25), Fraction(30), Fraction(30000, 1001)]


@pytest.fixture(scope="module")
def keyframes():
    return np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def envelope():
    return np.random.default_rng(2).uniform(0, 1, 1300).astype(np.float32)


def _formula(keyframes, envelope, fps, gap, min_factor, first):
    """z = K[i] + (K[i+1] - K[i]) * u * (envelope / min_factor + 1), t = frame / fps."""
    rows, step = [], 1 / fps / gap
    for frame, value in enumerate(envelope.tolist()):
        i, rest = divmod(frame * step.numerator, step.denominator)
        u = rest / step.denominator
        here = keyframes[(first + i) % len(keyframes)].astype(float)
        there = keyframes[(first + i + 1) % len(keyframes)].astype(float)
        rows.append(here + (there - here) * u * (value / min_factor + 1))
    return np.array(rows)


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("gap", ["1", "0.7", "0.25", "3.3"])
def test_the_path_is_the_articles_formula(keyframes, envelope, fps, gap):
    for min_factor in (1.0, 0.5):
        path = seed_path(
            keyframes, envelope, fps, seed=3, keyframe_gap=float(gap), min_factor=min_factor
        )
        first = path.first_keyframe
        expected = _formula(keyframes, envelope, fps, Fraction(gap), min_factor, first)
        found = path.latents(0, len(envelope))
        assert (found.dtype, found.shape) == (np.float32, (1300, 5))
        np.testing.assert_allclose(found, expected, 0, 2e-6, err_msg=f"{min_factor = }")


def test_at_60_fps_a_second_is_sixty_steps_from_keyframe_to_keyframe(keyframes):
    """Without beats: at frame 60 exactly the next keyframe, at frame 30 half way."""
    path = seed_path(keyframes, np.zeros(600, np.float32), Fraction(60))
    z = path.latents(0, 600)
    order = [(path.first_keyframe + i) % 7 for i in range(10)]
    np.testing.assert_array_equal(z[::60], keyframes[order])
    np.testing.assert_allclose(z[30], (keyframes[order[0]] + keyframes[order[1]]) / 2, atol=1e-6)


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("gap", ["0.7", "0.1", "1", "1.001", "0.3", "0.0333"])
def test_a_boundary_frame_is_never_off_by_one(fps, gap):
    """In floats, 0.7 * 3 > 2.1: the frame on a keyframe would show the one before, jumped past."""
    num_frames = 6_000
    ramp = np.arange(200, dtype=np.float32)[:, None]
    path = seed_path(ramp, np.zeros(num_frames, np.float32), fps, keyframe_gap=float(gap))
    start = path.first_keyframe
    step = 1 / fps / Fraction(gap)
    exact = [divmod(frame * step.numerator, step.denominator) for frame in range(num_frames)]
    found = path.latents(0, num_frames)[:, 0]
    on_keyframe = [frame for frame, (_, rest) in enumerate(exact) if rest == 0]
    assert len(on_keyframe) > 1 or (fps.denominator > 1 and gap != "1.001")
    for frame in on_keyframe:
        assert found[frame] == (start + exact[frame][0]) % 200, f"frame {frame}"
    inside = [(start + place) % 200 for place, _ in exact]
    beside = np.array([min(i, (i + 1) % 200) for i in inside])
    assert (found >= beside - 1e-3).all()


@pytest.mark.parametrize("gap", [1 / 3, 0.1234567890123, np.pi], ids=str)
def test_a_gap_with_many_digits_stays_exact_deep_into_a_show(gap):
    """Multiplying a frame number by such a fraction's denominator overflows 64 bits, silently."""
    keyframes = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    for fps in (Fraction(60), Fraction(30000, 1001)):
        path = seed_path(keyframes, np.zeros(648_000, np.float32), fps, keyframe_gap=gap)
        for frame in (5_000, 100_000, 647_990):
            place = Fraction(frame) / fps / Fraction(str(gap))
            i, u = floor(place), float(place - floor(place))
            here = keyframes[(path.first_keyframe + i) % 11]
            there = keyframes[(path.first_keyframe + i + 1) % 11]
            np.testing.assert_allclose(
                path.latents(frame, frame + 1)[0], here + (there - here) * u, rtol=0, atol=1e-3
            )


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_a_range_is_the_same_slice_of_the_whole(keyframes, envelope, fps):
    """Each chunk computes its own range: a difference would be a jump at every seam."""
    path = seed_path(keyframes, envelope, fps, keyframe_gap=0.7)
    whole = path.latents(0, path.num_frames)
    for start, stop in ((0, 1), (59, 61), (100, 100), (1000, 1300), (7, 990)):
        part = path.latents(start, stop).tobytes()
        assert part == whole[start:stop].tobytes(), f"frames {start} to {stop}"


def test_the_tour_wraps_and_starts_where_the_seed_says(keyframes):
    starts = []
    for seed in range(30):
        path = seed_path(keyframes, np.zeros(601, np.float32), Fraction(60), seed=seed)
        first = path.latents(0, 1)[0]
        place = next(i for i, keyframe in enumerate(keyframes) if np.array_equal(keyframe, first))
        assert np.array_equal(path.latents(600, 601)[0], keyframes[(place + 10) % 7])
        again = seed_path(keyframes, np.zeros(601, np.float32), Fraction(60), seed=seed)
        assert again.first_keyframe == place
        starts.append(place)
    assert set(starts) == set(range(7)), "some keyframe is never drawn first"


def test_a_single_keyframe_stands_still_and_none_is_an_error():
    one = np.ones((1, 4), np.float32)
    path = seed_path(one, np.ones(100, np.float32), Fraction(60))
    assert (path.latents(0, 100) == 1).all()
    assert (path.num_frames, path.latent_dim) == (100, 4)
    with pytest.raises(ModelError, match=r"no keyframes.*--keyframes"):
        seed_path(one[:0], np.ones(100, np.float32), Fraction(60))


def test_a_beat_moves_ahead_along_the_way(keyframes):
    """The envelope scales the distance travelled: at 1 and min factor 1 it is doubled."""
    still = seed_path(keyframes, np.zeros(60, np.float32), Fraction(60)).latents(0, 60)
    beat = seed_path(keyframes, np.ones(60, np.float32), Fraction(60)).latents(0, 60)
    np.testing.assert_allclose(beat - still[0], 2 * (still - still[0]), atol=1e-5)
