"""`doctor`: what this machine has, and what it lacks."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from asha_ray import ffmpeg
from asha_ray.errors import AshaError, SpecError
from asha_ray.storage.base import redacted
from asha_ray.vae.memory import available_bytes
from asha_ray.video import codecs

PACKAGES = ("asha-ray", "ray", "torch", "librosa", "numpy", "av", "boto3", "imageio-ffmpeg")
DEPENDENCIES = {
    "av": "av",
    "boto3": "boto3",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "librosa": "librosa",
    "matplotlib": "matplotlib",
    "numba": "numba",
    "numpy": "numpy",
    "pillow": "PIL",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "ray": "ray",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "torch": "torch",
    "typer": "typer",
}
"""What asha-ray needs, by the names to install, and to import."""
ENCODERS = ("libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc", "aac")
NEEDED_ENCODERS = ("libx264", "aac")
MIN_FREE_BYTES = 5 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        value: what was found.
        remedy: what to do about it; empty when all is well.
    """

    name: str
    value: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at this machine."""
    return [
        _python(),
        _packages(),
        *_devices(),
        _ffmpeg(),
        _memory(),
        _disk(),
        _stems(),
        _credentials(),
        _cluster(),
    ]


def examine_worker(*, has_gpu: bool) -> list[Finding]:
    """Look at this machine, which is one of a cluster's.

    Args:
        has_gpu: whether this process was given a GPU.
    """
    here = tuple(name for name in PACKAGES if name != "asha-ray")  # it may have come with the job
    return [
        _python(),
        _packages(here),
        _imports(),
        *(_require_gpu(finding) if has_gpu else finding for finding in _devices()),
        _ffmpeg(),
        _memory(),
        _disk(),
        _credentials(),
    ]


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", version)


def _packages(names: Sequence[str] | None = None) -> Finding:
    found, missing = [], []
    for name in PACKAGES if names is None else names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    remedy = f"install {', '.join(missing)}" if missing else ""
    return Finding("packages", ", ".join(found), remedy)


def _imports() -> Finding:
    """Whether what asha-ray needs is there and whole: a library of the system may be missing."""
    broken = {}
    for name, module in DEPENDENCIES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 (whatever it does when it is imported)
            broken[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not broken:
        return Finding("imports", f"all {len(DEPENDENCIES)} dependencies can be imported")
    told = ", ".join(f"{name} ({error})" for name, error in broken.items())
    return Finding("imports", f"not importable: {told}", f"install {', '.join(broken)} there")


def _require_gpu(finding: Finding) -> Finding:
    """The same, with what to do where there should be a GPU."""
    import torch

    if finding.name != "gpu" or torch.cuda.is_available():
        return finding
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return Finding(
        "gpu",
        f"Ray gives one, and torch {torch.__version__}, {built}, sees none",
        "install a torch for CUDA there, and check the driver with nvidia-smi",
    )


def _devices() -> list[Finding]:
    import torch

    cores = os.cpu_count() or 1
    capability = torch.backends.cpu.get_cpu_capability()
    findings = [Finding("cpu", f"{cores} cores, {capability}")]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("Apple MPS")
    cuda = f" (CUDA {torch.version.cuda})" if names and torch.version.cuda else ""
    found = f"{', '.join(names)}{cuda}" if names else "none: decoding runs on the CPU"
    findings.append(Finding("gpu", found))
    dtypes = ["float32", "bfloat16", "float16"] if names else ["float32", "bfloat16"]
    findings.append(Finding("dtypes", ", ".join(dtypes)))
    return [*findings, _numerics()]


def _numerics() -> Finding:
    from asha_ray.farm.rendering.numerics import read_table, table_path
    from asha_ray.vae.generator import pick_device
    from asha_ray.vae.numerics import describe, device_kind, numerics_of

    kind = device_kind(pick_device())
    try:
        own = read_table()
    except SpecError as error:
        return Finding("numerics", f"this user's table cannot be read ({error})", "delete it")
    source = (
        f"from {table_path()}" if kind in own else "as shipped; `asha-ray bench --tune` measures"
    )
    return Finding("numerics", f"{describe(numerics_of(kind, own))} ({source})")


def _ffmpeg() -> Finding:
    try:
        known = ffmpeg.encoders()
        encoders = [name for name in ENCODERS if name in known]
        value = f"{ffmpeg.version()} with {', '.join(encoders)}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", f"it does not run ({error})", "reinstall imageio-ffmpeg")
    missing = [name for name in NEEDED_ENCODERS if name not in encoders]
    # ffmpeg lists them on every machine; only an encode tells.
    idle = [name for name in codecs.NVENC if name in encoders and codecs.failure(name)]
    if idle:
        value += f" ({', '.join(idle)}: not on this machine)"
    return Finding("ffmpeg", value, f"it lacks {', '.join(missing)}" if missing else "")


def _memory() -> Finding:
    return Finding("memory", f"{available_bytes() / 1e9:.1f} GB free")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    remedy = "long renders need more; give --work on another disk" if free < MIN_FREE_BYTES else ""
    return Finding("disk", f"{free / 1e9:.0f} GB free here", remedy)


def _stems() -> Finding:
    from asha_ray.audio.stems.kinds import KINDS
    from asha_ray.audio.stems.models import locate_model

    here = [f"spleeter ({name})" for name in KINDS if locate_model(name)]
    if here:
        return Finding("stems", f"{', '.join(here)}, hpss")
    return Finding("stems", "hpss; Spleeter once `asha-ray stems --fetch 4stems` has fetched it")


def _credentials() -> Finding:
    import boto3

    try:
        session = boto3.Session()
        credentials = session.get_credentials()
        endpoint = boto3.client("s3", region_name=session.region_name).meta.endpoint_url
    except (AshaError, Exception) as error:  # noqa: BLE001 (a doctor reports, whatever it is)
        return Finding("s3", f"not usable: {redacted(str(error))}", "check the AWS configuration")
    if credentials is None:
        return Finding("s3", "no credentials: only local paths work")
    # how they were found, never what they are
    return Finding("s3", f"credentials from {credentials.method}, endpoint {redacted(endpoint)}")


def _cluster() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    return Finding("ray", f"RAY_ADDRESS is {address}" if address else "a local one when needed")
