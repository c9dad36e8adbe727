"""At what pace work gets done, from rates that were measured or given, and what that costs."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import log

from asha_ray.errors import SpecError
from asha_ray.farm.rendering.space import CRF_PER_HALF
from asha_ray.farm.tools.rates import (
    MachineRate,
    PipelineRate,
    Rates,
    architecture_digest,
    scaled,
)
from asha_ray.vae.architecture import Architecture
from asha_ray.values import Size

BITS_PER_PIXEL = 0.1
"""Of moving pictures at crf 18, where nobody has seen any."""
USUAL_CRF = 18


@dataclass(frozen=True)
class Pace:
    """How fast one worker is: a GPU with the cores beside it, or a machine's cores.

    Attributes:
        kind: of device.
        cores: of the worker.
        frames_per_s: at the video's size.
        chunk_s: seconds that each chunk takes beside its frames.
        bits_per_pixel: of the segments.
        source: where all this comes from.
        machine: what a render takes beside its frames; None where nobody has measured it.
        notes: what was assumed.
    """

    kind: str
    cores: int
    frames_per_s: float
    chunk_s: float
    bits_per_pixel: float
    source: str
    machine: MachineRate | None = None
    notes: tuple[str, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether a worker has a GPU; its CPUs are then counted as a part of that."""
        return self.kind.startswith("cuda")


def pace_of(
    rates: Rates,
    architecture: Architecture,
    size: Size,
    *,
    kind: str,
    cores: int,
    model: str,
    crf: int = USUAL_CRF,
    given: float | None = None,
    source: str = "",
) -> Pace:
    """The pace of a render.

    Args:
        rates: what was measured.
        architecture: of the model.
        size: of the video.
        kind: of device that is asked for; rates of others serve where there are none of it.
        cores: of a worker of that kind.
        model: its uri, for the error.
        crf: of the segments.
        given: frames per second of one worker, as a person says.
        source: where the rates come from.

    Raises:
        SpecError: if there is no rate, saying how to get one.
    """
    digest = architecture_digest(architecture)
    known = [rate for rate in rates.pipelines if rate.model == digest]
    # Of a GPU that is elsewhere, only that it is one may be known.
    alike = [rate for rate in known if rate.kind.partition("-")[0] == kind.partition("-")[0]]
    own = [rate for rate in alike if rate.kind == kind] or alike or known
    nearest = min(own, key=lambda rate: abs(log(_pixels(rate.size) / _pixels(size))), default=None)
    bits = _bits_per_pixel(nearest, crf)
    if given is not None:
        machine = rates.machine(kind)
        return Pace(kind, cores, given, 0.0, bits, "given by --rate", machine, _missing(machine))
    if nearest is None:
        raise SpecError(
            f"planning with model {model}: nobody has measured how fast it renders; run "
            f"`asha-ray bench --model {model} --size {size[0]}x{size[1]}`, or give --rate, the "
            "frames per second of one worker"
        )
    pace = Pace(
        kind=nearest.kind,
        cores=nearest.cores,
        frames_per_s=scaled(nearest, size),
        chunk_s=nearest.chunk_s,
        bits_per_pixel=bits,
        source=f"measured by bench on {nearest.kind}, {nearest.time[:10]} ({source})",
        machine=rates.machine(nearest.kind),
    )
    return replace(pace, notes=(*_doubts(nearest, size, kind), *_missing(pace.machine)))


def _pixels(size: Size) -> int:
    return size[0] * size[1]


def _bits_per_pixel(rate: PipelineRate | None, crf: int) -> float:
    bits, at = (rate.bits_per_pixel, rate.crf) if rate else (BITS_PER_PIXEL, USUAL_CRF)
    return float(bits * 2 ** ((at - crf) / CRF_PER_HALF))


def _doubts(rate: PipelineRate, size: Size, kind: str) -> tuple[str, ...]:
    doubts = []
    if rate.size != size:
        doubts.append(
            f"the rate was measured at {rate.size[0]}x{rate.size[1]} and is scaled by pixels; "
            f"`asha-ray bench --size {size[0]}x{size[1]}` would tell"
        )
    if rate.kind.partition("-")[0] != kind and rate.kind != kind:
        doubts.append(f"the rate is that of {rate.kind}, not of {kind}")
    return tuple(doubts)


def _missing(machine: MachineRate | None) -> tuple[str, ...]:
    if machine is not None:
        return ()
    return ("start, listening and joining are not counted: `asha-ray bench` measures them",)


def span_s(chunk_frames: Iterable[int], workers: int, pace: Pace) -> float:
    """Seconds from the first chunk to the last: each is taken by the worker that is free first."""
    free_at = [0.0] * workers
    for num_frames in chunk_frames:
        taken = num_frames / pace.frames_per_s + pace.chunk_s
        heapq.heapreplace(free_at, free_at[0] + taken)
    return max(free_at)
