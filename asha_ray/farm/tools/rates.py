"""How fast machines are: what `bench` measured, kept for `plan` in a small file."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from asha_ray.config import config_path
from asha_ray.errors import NotFoundError, SpecError
from asha_ray.spec import build
from asha_ray.storage import storage_of
from asha_ray.storage.keys import digest_of
from asha_ray.vae.architecture import Architecture
from asha_ray.values import Size

VERSION = 1
MAX_FILE_BYTES = 1 << 20
REMEDY = "measure anew with `asha-ray bench`, which replaces the file once it is deleted"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PipelineRate(_Frozen):
    """How fast one worker renders: a GPU with the cores beside it, or all cores of a machine.

    Attributes:
        kind: of device, see `device_kind`.
        model: digest of the architecture, which decides what a picture costs.
        model_name: it in words.
        size: width and height of the video.
        cores: that it used.
        frames_per_s: of one worker that goes on and on.
        chunk_s: seconds that each chunk takes beside its frames: an encoder begins and ends.
        cost_ms: CPU time of a frame.
        bits_per_pixel: of the segments.
        encoder: of the segments, in words.
        crf: of the segments.
        time: when it was measured, in UTC.
    """

    kind: str
    model: str
    model_name: str
    size: tuple[Side, Side]
    cores: Annotated[int, Field(ge=1)]
    frames_per_s: Positive
    chunk_s: Seconds = 0.0
    cost_ms: Seconds = 0.0
    bits_per_pixel: Positive
    encoder: str
    crf: int
    time: str


class MachineRate(_Frozen):
    """What a render takes beside its frames on one kind of machine.

    Attributes:
        kind: of device.
        cores: that were used.
        listen: seconds of sound that are measured in a second, without stems.
        join: seconds of video that are joined with their sound in a second.
        import_s: seconds until a command begins; no part of what a render calls its own time.
        start_s: executor -> seconds that a render of next to nothing calls its own time.
        time: when it was measured, in UTC.
    """

    kind: str
    cores: Annotated[int, Field(ge=1)]
    listen: Positive
    join: Positive
    import_s: Seconds
    start_s: dict[Literal["serial", "ray"], Seconds]
    time: str


class Rates(_Frozen):
    """The latest of each kind that was measured."""

    version: Literal[1] = 1
    pipelines: tuple[PipelineRate, ...] = ()
    machines: tuple[MachineRate, ...] = ()

    def machine(self, kind: str) -> MachineRate | None:
        """What is known of a kind of machine."""
        return next((machine for machine in self.machines if machine.kind == kind), None)


def architecture_digest(architecture: Architecture) -> str:
    """What tells models apart whose pictures cost something else."""
    return digest_of(asdict(architecture))[:16]


def rates_path() -> Path:
    """Where this user's rates are, as `asha-ray bench` writes them."""
    return config_path().with_name("rates.json")


def read_rates(uri: str | None = None) -> Rates:
    """Rates of a file, which may be what `bench --json` printed; without one, this user's.

    Raises:
        NotFoundError: if a file was named that is not there.
        SpecError: if it is damaged, or newer than this version.
    """
    place = uri or str(rates_path())
    storage = storage_of(place)
    try:
        if (storage.size(place) or 0) > MAX_FILE_BYTES:
            raise ValueError("it is too large for one")
        data = json.loads(storage.read(place))
        data = data.get("rates", data)
        if data["version"] != VERSION:
            raise ValueError(f"its version is {data['version']!r:.40}, not {VERSION}")
    except NotFoundError:
        if uri is not None:
            raise
        return Rates()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpecError(f"reading rates {place}: {str(error)[:200]}; {REMEDY}") from error
    return build(Rates, data, f"reading rates {place}")


def merged(old: Rates, new: Rates) -> Rates:
    """Both; what is newly measured replaces what was known of the same."""
    return Rates(
        pipelines=_latest(
            (*old.pipelines, *new.pipelines), lambda rate: (rate.kind, rate.model, rate.size)
        ),
        machines=_latest((*old.machines, *new.machines), lambda rate: rate.kind),
    )


def _latest(rates: Iterable[Any], key: Any) -> tuple[Any, ...]:
    return tuple({key(rate): rate for rate in rates}.values())


def write_rates(rates: Rates, path: Path | None = None) -> Path:
    """Replace this user's rates; the file appears whole."""
    path = path or rates_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(rates.model_dump(mode="json"), file, indent=1)
    Path(file.name).replace(path)
    return path


def scaled(rate: PipelineRate, size: Size) -> float:
    """Frames per second at another size of the video: as many pixels."""
    return rate.frames_per_s * (rate.size[0] * rate.size[1]) / (size[0] * size[1])
