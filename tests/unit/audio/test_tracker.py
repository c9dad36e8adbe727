"""What is compiled for the beat tracker, of which numba keeps everything."""

import numba
from numba.core.caching import NullCache


def test_all_that_is_compiled_is_kept() -> None:
    """Each process that finds beats would take two seconds more, as with librosa alone."""
    from asha_ray.audio import tracker  # before anything else imports what it imports

    import librosa.beat  # isort: skip

    compiled = [part for part in vars(librosa.beat).values() if hasattr(part, "gufunc_builder")]
    assert tracker.beat_track is librosa.beat.beat_track
    assert len(compiled) >= 5
    caches = [part.gufunc_builder.nb_func.cache for part in compiled]
    assert [cache for cache in caches if isinstance(cache, NullCache)] == []


def test_numba_is_left_as_it_was() -> None:
    from asha_ray.audio import tracker

    assert numba.guvectorize is tracker._compile
