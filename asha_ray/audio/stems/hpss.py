"""Harmonic and percussive stems by median filters, as a stream; needs no weights.

What `librosa.effects.hpss` computes, in blocks: a sound that lasts is a line along time in the
spectrogram, a stroke is a line along frequency, and medians along either keep one and drop the
other (D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010). A median
looks 15 frames to each side, so blocks of frames overlap by that and give the whole track's.

Shape legend: m samples, t frames, f 1025 bins, c 2 channels; spectra are `[c, t, f]`.
"""

from collections.abc import Iterator

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from asha_ray.audio.stems.pcm import Counter, to_stereo
from asha_ray.audio.stems.separator import SeparatorSettings, StemBlocks
from asha_ray.values import FloatArray, PcmStream

N_FFT = 2048
HOP_LENGTH = 512
OVERLAP = N_FFT - HOP_LENGTH
KERNEL = 31
REACH = KERNEL // 2
BLOCK_FRAMES = 512
ALGORITHM = 1
"""Raised when the same sound gives other stems."""

Spectra = NDArray[np.complex64]


class HpssSeparator:
    """Harmonic and percussive stems of sound of any sample rate."""

    name = "hpss"
    stems: tuple[str, ...] = ("harmonic", "percussive")
    version = f"hpss-{ALGORITHM}-{N_FFT}-{HOP_LENGTH}-{KERNEL}"
    sample_rate: int | None = None

    def separate(self, pcm: PcmStream, first_sample: int = 0) -> StemBlocks:
        """Stems of a sound, see `Separator`."""
        del first_sample  # frames may be counted from wherever a sound begins
        counter, join, num_out = Counter(), _Join(), 0
        blocks = counter.counted(to_stereo(block) for block in pcm.blocks)
        for spectra, first, last, is_end in _blocks_of_frames(blocks):
            stems = _separate(spectra)[:, :, first:last]
            sound = join.add(stems, is_end=is_end)[:, : counter.num_samples - num_out]
            num_out += sound.shape[1]
            if sound.shape[1]:
                yield dict(zip(self.stems, sound, strict=True))

    def block_start(self, start: int, sample_rate: int) -> int:
        """Far enough back for medians and windows, on the grid of the frames."""
        del sample_rate
        return max(0, start - REACH * HOP_LENGTH - 2 * N_FFT) // HOP_LENGTH * HOP_LENGTH

    def block_stop(self, stop: int, sample_rate: int) -> int | None:
        """As far ahead as it looks back."""
        del sample_rate
        return stop + REACH * HOP_LENGTH + 2 * N_FFT

    def close(self) -> None:
        """Nothing is held."""

    def cut_near(self, sample: int, sample_rate: int) -> int | None:
        """Anywhere."""
        del sample_rate
        return sample


def make(settings: SeparatorSettings) -> HpssSeparator:
    """A separator; there is nothing to set."""
    del settings
    return HpssSeparator()


def _window() -> FloatArray:
    from librosa.filters import get_window  # takes seconds to import

    return np.asarray(get_window("hann", N_FFT, fftbins=True), np.float32)


def _blocks_of_frames(blocks: Iterator[FloatArray]) -> Iterator[tuple[Spectra, int, int, bool]]:
    """Cut blocks `[m, 2]` into blocks of spectra that overlap by what the medians need.

    Frames are centred on multiples of the hop, with silence before and behind, as librosa's.

    Yields:
        Spectra, the first of them that is this block's own, the one after the last, and whether
        this block is the last.
    """
    waiting = np.zeros((N_FFT // 2, 2), np.float32)
    before = 0
    for block in blocks:
        for start in range(0, len(block), BLOCK_FRAMES * HOP_LENGTH):
            part = block[start : start + BLOCK_FRAMES * HOP_LENGTH]
            waiting = np.concatenate([waiting, part])
            # One frame more than is needed, so that some are left for the last block.
            last = before + BLOCK_FRAMES
            if _num_frames(waiting) > last + REACH:
                yield _spectra(waiting, last + REACH), before, last, False
                waiting = waiting[(last - REACH) * HOP_LENGTH :]
                before = REACH
    if before or len(waiting) > N_FFT // 2:
        waiting = np.concatenate([waiting, np.zeros((N_FFT // 2, 2), np.float32)])
        num_frames = _num_frames(waiting)
        yield _spectra(waiting, num_frames), before, num_frames, True


def _num_frames(sound: FloatArray) -> int:
    return max(0, 1 + (len(sound) - N_FFT) // HOP_LENGTH)


def _spectra(sound: FloatArray, num_frames: int) -> Spectra:
    frames = sliding_window_view(sound.T, N_FFT, axis=1)[:, ::HOP_LENGTH][:, :num_frames]
    return np.asarray(scipy.fft.rfft(frames * _window(), axis=-1), np.complex64)


def _separate(spectra: Spectra) -> Spectra:
    """Spectra `[c, t, f]` -> those of both stems `[2, c, t, f]`."""
    from librosa.util import softmask

    stems = np.empty((2, *spectra.shape), np.complex64)
    for channel, spectrum in enumerate(spectra):
        magnitude = np.abs(spectrum)
        harmonic = _median_along_rows(np.ascontiguousarray(magnitude.T)).T
        percussive = _median_along_rows(magnitude)
        for stem, (kept, dropped) in enumerate([(harmonic, percussive), (percussive, harmonic)]):
            mask = softmask(kept, dropped, power=2.0, split_zeros=True)
            stems[stem, channel] = spectrum * mask
    return stems


def _median_along_rows(values: FloatArray) -> FloatArray:
    # SciPy's filter of one dimension is several times as fast as that of two, so the rows are
    # laid end to end, each between its own reflections.
    padded = np.pad(values, ((0, 0), (REACH, REACH)), mode="symmetric")
    filtered = median_filter(padded.reshape(-1), size=KERNEL).reshape(padded.shape)
    return np.asarray(filtered[:, REACH:-REACH], np.float32)


class _Join:
    """Turns spectra into sound, adding up frames that overlap, across blocks."""

    def __init__(self) -> None:
        self._sound = np.zeros((2, 2, OVERLAP), np.float32)
        self._weight = np.zeros(OVERLAP, np.float32)
        # The first frame is centred on the first sample.
        self._skip = N_FFT // 2

    def add(self, stems: Spectra, *, is_end: bool) -> FloatArray:
        """Spectra `[2, c, t, f]` -> what is finished of both stems `[2, m, c]`."""
        window = _window()
        frames = scipy.fft.irfft(stems, n=N_FFT, axis=-1) * window
        sound = _overlap_add(frames)
        weight = _overlap_add(np.broadcast_to(np.square(window), (frames.shape[2], N_FFT)))
        sound[..., :OVERLAP] += self._sound
        weight[:OVERLAP] += self._weight
        end = len(weight) - (0 if is_end else OVERLAP)
        self._sound, self._weight = sound[..., end:].copy(), weight[end:].copy()
        weight[weight <= np.finfo(np.float32).tiny] = 1
        ready = sound[..., self._skip : end] / weight[self._skip : end]
        self._skip = max(0, self._skip - end)
        return np.ascontiguousarray(np.swapaxes(ready, 1, 2))


def _overlap_add(frames: FloatArray) -> FloatArray:
    """Frames `[..., t, N_FFT]` -> sound `[..., (t - 1) * HOP_LENGTH + N_FFT]`."""
    *outer, num_frames, _ = frames.shape
    num_hops = N_FFT // HOP_LENGTH
    hops = frames.reshape(*outer, num_frames, num_hops, HOP_LENGTH)
    sound = np.zeros((*outer, num_frames + num_hops - 1, HOP_LENGTH), np.float32)
    for hop in range(num_hops):
        sound[..., hop : hop + num_frames, :] += hops[..., hop, :]
    return sound.reshape(*outer, -1)
