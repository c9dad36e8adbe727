"""The analysis grid: the article's 60 frames a second at 30,720 Hz with a hop of 512 samples.

Analysis frame `t` is centred on sample `512 t` and is frame `t` of a video at 60 fps. Everything
is measured on it; other video rates are resampled from it, so the same music looks the same at 24
and at 60 fps.
"""

GRID_FPS = 60
HOP_LENGTH = 512
SAMPLE_RATE = GRID_FPS * HOP_LENGTH
N_FFT = 2048
BAND_EDGES_HZ = (250.0, 4000.0)
"""Low reaches up to the first, high begins at the second."""


def num_grid_frames(num_samples: int) -> int:
    """Analysis frames of `num_samples` at the grid's rate, at least one window's.

    >>> num_grid_frames(30720)
    61
    """
    return 1 + max(num_samples, N_FFT) // HOP_LENGTH
