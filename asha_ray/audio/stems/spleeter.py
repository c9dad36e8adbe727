"""Spleeter's separation in torch, as a stream: memory does not grow with the length of a track.

Spleeter looks at a track in segments of 512 STFT frames, each on its own. So a stream is cut along
them, and only the last three hops of a segment's sound wait for the first of the next: the result
is the whole track's.

Shape legend: m samples, t 512 frames, f 2049 bins.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.models import find_model, remedied
from asha_ray.audio.stems.pcm import RESAMPLER_REACH_S, Counter, aligned, at_rate
from asha_ray.audio.stems.separator import SeparatorSettings, StemBlocks
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.audio.stems.unet import MaskModel, load_mask_model
from asha_ray.errors import ResourceError
from asha_ray.values import FloatArray, PcmStream

SAMPLE_RATE = 44_100
FRAME_LENGTH = 4096
HOP_LENGTH = 1024
SEGMENT_FRAMES = 512
NUM_BINS = 1024
"""Bins that the networks see; the mask is 0 above."""
SEGMENT = SEGMENT_FRAMES * HOP_LENGTH
OVERLAP = FRAME_LENGTH - HOP_LENGTH
WINDOW_COMPENSATION = 2 / 3
ALGORITHM = 1
"""Raised when the same model and sound give other stems."""


class SpleeterSeparator:
    """Spleeter's 2, 4 or 5 stems by the U-Nets of its published models, in float32.

    Args:
        model: `2stems`, `4stems` or `5stems`.
        model_dir: the folder with its files; None looks in the usual places.
        device: `cpu`, `cuda`, `mps`, or `auto` for the best there is.

    The networks are loaded by the first sound that is separated: who only asks what the stems are
    called, or where to cut, needs none.

    Raises:
        StemsError: if the model is missing, or its index damaged; where the rest of it is, when it
            is loaded.
    """

    name = "spleeter"
    sample_rate: int | None = SAMPLE_RATE

    def __init__(
        self, model: str = "4stems", model_dir: Path | None = None, device: str = "auto"
    ) -> None:
        folder = find_model(model, model_dir)
        with remedied(model):
            self._checkpoint = Checkpoint(folder)
        self._name, self._loading = model, threading.Lock()
        self._loaded: MaskModel | None = None
        self._device = _device(device)
        self._window = torch.hann_window(FRAME_LENGTH, periodic=True, device=self._device)
        self.stems = KINDS[model].stems
        self.version = f"spleeter-{ALGORITHM}-{model}-{self._checkpoint.digest}"

    def separate(self, pcm: PcmStream, first_sample: int = 0) -> StemBlocks:
        """Stems of a sound, see `Separator`.

        With a `first_sample` beyond 0, samples before the first whole segment come out as silence.
        """
        at_44100 = first_sample * SAMPLE_RATE // pcm.sample_rate
        columns = at_rate(
            pcm,
            SAMPLE_RATE,
            lambda blocks: self._separate_segments(blocks, at_44100),
            num_columns=2 * len(self.stems),
        )
        for block in columns:
            yield {
                stem: np.ascontiguousarray(block[:, 2 * index : 2 * index + 2])
                for index, stem in enumerate(self.stems)
            }

    def block_start(self, start: int, sample_rate: int) -> int:
        """The segment before that of `start`, whose last hops are needed."""
        reach = round(RESAMPLER_REACH_S * SAMPLE_RATE) if sample_rate != SAMPLE_RATE else 0
        at_44100 = start * SAMPLE_RATE // sample_rate - reach
        segment = (at_44100 + FRAME_LENGTH) // SEGMENT
        first = (segment - 1) * SEGMENT - FRAME_LENGTH - reach
        return aligned(first * sample_rate // SAMPLE_RATE, sample_rate, SAMPLE_RATE)

    def block_stop(self, stop: int, sample_rate: int) -> int | None:
        """The end of the segment of the last sample, and of the window of its last frame."""
        reach = round(RESAMPLER_REACH_S * SAMPLE_RATE) if sample_rate != SAMPLE_RATE else 0
        at_44100 = _rescaled_up(stop, sample_rate, SAMPLE_RATE) + reach
        last = _segment_stop(at_44100) + OVERLAP + reach
        return _rescaled_up(last, SAMPLE_RATE, sample_rate)

    def close(self) -> None:
        """The model stays: it is small, and the next part's too."""

    def cut_near(self, sample: int, sample_rate: int) -> int | None:
        """Between two segments."""
        at_44100 = _rescaled_up(sample, sample_rate, SAMPLE_RATE)
        return _rescaled_up(_segment_stop(at_44100), SAMPLE_RATE, sample_rate)

    def _separate_segments(
        self, blocks: Iterator[FloatArray], first_sample: int
    ) -> Iterator[FloatArray]:
        """Blocks `[m, 2]` -> blocks `[m, 2 * stems]`, in all of the same length, at 44.1 kHz."""
        # A frame of zeros goes before the track, and segments are counted from there.
        ahead, lead = FRAME_LENGTH, 0
        if first_sample:
            ahead, lead = 0, -(first_sample + FRAME_LENGTH) % SEGMENT
        counter = Counter()
        num_out = 0
        carry = torch.zeros(OVERLAP, 2 * len(self.stems), device=self._device)
        model = self._networks()
        for part in _segments(counter.counted(blocks), lead, ahead):
            sound = self._separate_segment(model, torch.from_numpy(part).to(self._device), carry)
            carry = sound[SEGMENT:]
            ready = functional.pad(sound[ahead:SEGMENT], (0, 0, lead, 0))
            ready = ready[: counter.num_samples - num_out]
            num_out += len(ready)
            ahead = lead = 0
            if len(ready):
                yield ready.cpu().numpy()
        if num_out < counter.num_samples:
            yield np.zeros((counter.num_samples - num_out, carry.shape[1]), np.float32)

    def _networks(self) -> MaskModel:
        with self._loading:
            if self._loaded is None:
                with remedied(self._name):
                    self._loaded = load_mask_model(self._checkpoint, self._name).to(self._device)
            return self._loaded

    @torch.no_grad()
    def _separate_segment(
        self, model: MaskModel, sound: torch.Tensor, carry: torch.Tensor
    ) -> torch.Tensor:
        """Stems of a segment, its frames added onto what the one before left.

        Args:
            model: the networks.
            sound: `[SEGMENT + OVERLAP, 2]`.
            carry: `[OVERLAP, 2 * stems]`.

        Returns:
            `[SEGMENT + OVERLAP, 2 * stems]`.
        """
        with _full_precision():
            frames = sound.T.unfold(1, FRAME_LENGTH, HOP_LENGTH) * self._window
            spectrum = torch.fft.rfft(frames)  # [2, t, f]
            masks = model(spectrum[None, :, :, :NUM_BINS].abs())[:, 0]
            synthesis = self._window * WINDOW_COMPENSATION
            columns = []
            for index, mask in enumerate(masks):
                before = carry[:, 2 * index : 2 * index + 2].T
                masked = torch.zeros_like(spectrum)
                masked[..., :NUM_BINS] = spectrum[..., :NUM_BINS] * mask
                columns.append(_overlap_add(torch.fft.irfft(masked) * synthesis, before))
            return torch.cat(columns).T.contiguous()


def make(settings: SeparatorSettings) -> SpleeterSeparator:
    """A separator of the model that the settings name."""
    return SpleeterSeparator(settings.model, settings.model_dir, settings.device)


def _segment_stop(sample: int) -> int:
    """The first sample at or behind `sample` with which a segment's frames begin."""
    return -(-(sample + FRAME_LENGTH) // SEGMENT) * SEGMENT - FRAME_LENGTH


def _rescaled_up(sample: int, from_rate: int, to_rate: int) -> int:
    return -(-sample * to_rate // from_rate)


def _segments(blocks: Iterator[FloatArray], skip: int, ahead: int) -> Iterator[FloatArray]:
    """Cut blocks `[m, 2]` into overlapping segments `[SEGMENT + OVERLAP, 2]`.

    Args:
        blocks: the sound.
        skip: samples to leave out in front.
        ahead: zeros to put in front; as many as are needed go behind.
    """
    waiting = [np.zeros((ahead, 2), np.float32)]
    num_waiting = ahead
    has_sound = False
    for block in blocks:
        has_sound = has_sound or len(block) > 0
        sound, skip = block[skip:], max(0, skip - len(block))
        for first in range(0, len(sound), SEGMENT):
            piece = sound[first : first + SEGMENT]
            waiting.append(piece)
            num_waiting += len(piece)
            while num_waiting >= SEGMENT + OVERLAP:
                joined = np.concatenate(waiting)
                yield joined[: SEGMENT + OVERLAP]
                waiting, num_waiting = [joined[SEGMENT:]], num_waiting - SEGMENT
    rest = np.concatenate(waiting)
    while has_sound and len(rest):
        part = rest[: SEGMENT + OVERLAP]
        yield np.pad(part, ((0, SEGMENT + OVERLAP - len(part)), (0, 0)))
        rest = rest[SEGMENT:]


def _overlap_add(frames: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Frames `[2, t, FRAME_LENGTH]` -> sound `[2, (t - 1) * HOP_LENGTH + FRAME_LENGTH]`.

    `before` `[2, OVERLAP]` is what earlier frames left there. The oldest are added first, so the
    sums are those of the whole track to the last bit, wherever it is cut.
    """
    num_frames = frames.shape[1]
    hops = frames.reshape(2, num_frames, -1, HOP_LENGTH)
    num_hops = hops.shape[2]
    sound = frames.new_zeros(2, num_frames + num_hops - 1, HOP_LENGTH)
    sound.view(2, -1)[:, :OVERLAP] = before
    for hop in reversed(range(num_hops)):
        sound[:, hop : hop + num_frames] += hops[:, :, hop]
    return sound.reshape(2, -1)


def _device(name: str) -> torch.device:
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (name == "cuda" and not has_cuda) or (name == "mps" and not has_mps):
        raise ResourceError(
            f"separating on {name}: torch sees no such device here; use --device cpu"
        )
    if name != "auto":
        return torch.device(name)
    if has_cuda:
        return torch.device("cuda")
    return torch.device("mps" if has_mps else "cpu")


@contextmanager
def _full_precision() -> Iterator[None]:
    # cuDNN rounds the inputs of convolutions to 10 bits (TF32) unless told not to.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
