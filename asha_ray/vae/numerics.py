"""How a decoder computes on each kind of device: the table that is shipped, and its kinds.

A kind names what decides the arithmetic and its speed: `cpu-avx512-bf16`, `cuda-sm90`. Frames from
one kind and one build of torch are the same, bit for bit. Rows are measured once, with
`asha-ray bench --tune`, never while a render runs.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from asha_ray.values import Numerics

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
COMPILE_MODES = ("none", "default", "max-autotune-no-cudagraphs")
MAX_BATCH = 1024
MAX_THREADS = 256


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        dtype: `float32`, `bfloat16` or `float16`.
        channels_last: memory layout of the decoder's maps.
        batch_size: pictures decoded together.
        threads: of one decoder on a CPU. Several decoders share the cores; 1 is best, since they
            never wait for one another, nor for a core that somebody else has taken. 0 on a GPU.
        compile: `none`, or a mode of `torch.compile`, which needs a compiler on every worker.
    """

    dtype: str
    channels_last: bool
    batch_size: int
    threads: int = 0
    compile: str = "none"


TABLE: Mapping[str, Row] = {
    # Matrix units or dot products in bfloat16; without either it is slower than float32.
    "cpu-amx": Row("bfloat16", channels_last=True, batch_size=4, threads=1),
    "cpu-avx512-bf16": Row("bfloat16", channels_last=True, batch_size=2, threads=1),
    "cpu-avx512": Row("float32", channels_last=True, batch_size=2, threads=1),
    "cpu-avx2": Row("float32", channels_last=True, batch_size=2, threads=1),
    "cpu-arm": Row("float32", channels_last=True, batch_size=2, threads=1),
    "cpu": Row("float32", channels_last=True, batch_size=2, threads=1),
    # Batches are large enough to fill the device at 448², and fit its memory at 4K.
    "cuda-sm80": Row("bfloat16", channels_last=True, batch_size=16),
    "cuda-sm86": Row("bfloat16", channels_last=True, batch_size=16),
    "cuda-sm89": Row("bfloat16", channels_last=True, batch_size=16),
    "cuda-sm90": Row("bfloat16", channels_last=True, batch_size=16),
    "cuda": Row("float16", channels_last=True, batch_size=16),
    "mps": Row("float32", channels_last=False, batch_size=8),
}
"""Kind of device -> how decoders compute there. `cpu`, `cuda` and `mps` serve unlisted kinds."""


def device_kind(device: str) -> str:
    """The kind of this machine's `cpu`, `cuda` or `mps`."""
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"cuda-sm{major}{minor}"
    if device != "cpu":
        return device
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "cpu-arm"
    # Of torch.cpu, since these are what its kernels choose by; older builds may lack them.
    if _has("_is_amx_tile_supported"):
        return "cpu-amx"
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        return "cpu-avx512-bf16" if _has("_is_avx512_bf16_supported") else "cpu-avx512"
    return "cpu-avx2" if capability == "AVX2" else "cpu"


def numerics_of(kind: str, overlay: Mapping[str, Row] | None = None) -> Numerics:
    """How decoders compute on a kind of device: from `overlay`, else from the table."""
    rows = {**TABLE, **(overlay or {})}
    device = kind.partition("-")[0]
    row = rows.get(kind) or rows[device]
    return Numerics(
        device=device,
        dtype=row.dtype,
        channels_last=row.channels_last,
        batch_size=row.batch_size,
        threads=row.threads,
        torch_version=torch.__version__,
        kind=kind,
        compile=row.compile,
    )


def exact(numerics: Numerics) -> Numerics:
    """The same in float32."""
    return replace(numerics, dtype="float32")


def describe(numerics: Numerics) -> str:
    """Numerics in a few words for people."""
    layout = "channels last" if numerics.channels_last else "channels first"
    compiled = "" if numerics.compile == "none" else f", compiled ({numerics.compile})"
    return (
        f"{numerics.dtype}, {layout}, {numerics.batch_size} pictures at a time{compiled} "
        f"on {numerics.kind or numerics.device}"
    )


def _has(name: str) -> bool:
    check = getattr(torch.cpu, name, None)
    return bool(check and check())
