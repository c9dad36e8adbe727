"""Several decoders beside one another, their batches kept in order.

On a CPU each decoder has a core to itself: on a machine that others use too, threads that share
one batch wait for whichever of them lost its core (measured: a fifth of the speed), and decoders
with a batch each do not. On a GPU two of them, on a stream each, overlap computing and copying.
How many there are changes no frame, since every batch is computed by itself.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from asha_ray.values import ByteArray

AHEAD = 1
"""Batches begun beside those in hand, so that no decoder waits while frames are handed on."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Decoders:
    """Threads that decode. Used as a context; leaving it ends them.

    Args:
        num_decoders: how many.
        threads: of each within torch; 0 leaves them as they are.
        device: `cpu`, `cuda` or `mps`.
    """

    def __init__(self, num_decoders: int, threads: int = 0, device: str = "cpu") -> None:
        self.num_decoders = num_decoders
        self._threads, self._device = threads, device
        self._own = threading.local()
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(num_decoders, "decoder", self._begin)

    def map(self, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """`work` of every item, in their order; a few are worked on ahead, never more."""
        pending: deque[Future[_Result]] = deque()
        try:
            for item in items:
                pending.append(self._pool.submit(self._run, work, item))
                if len(pending) > self.num_decoders + AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for future in pending:
                if not future.cancelled():
                    future.exception()  # what is running must not outlive the chunk

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        if self._threads:  # torch's setting is the process's, and others compute here too
            torch.set_num_threads(self._threads_before)

    def _begin(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        self._own.stream = torch.cuda.Stream() if self._device == "cuda" else None

    def _run(self, work: Callable[[_Item], _Result], item: _Item) -> _Result:
        stream = self._own.stream
        # torch.cuda.stream is not annotated
        context: AbstractContextManager[Any] = (
            torch.cuda.stream(stream) if stream else nullcontext()
        )
        with torch.inference_mode(), context:
            return work(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def on_host(frames: Tensor) -> ByteArray:
    """The bytes of frames, in memory that ffmpeg can be fed from.

    From a GPU they come through page-locked memory, which torch keeps and reuses; one event for
    the whole batch is waited for, in the decoder's own thread.
    """
    if frames.device.type != "cuda":
        return np.asarray(frames.cpu().numpy(), np.uint8)
    host = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
    host.copy_(frames, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    copied.synchronize()
    return np.asarray(host.numpy(), np.uint8)
