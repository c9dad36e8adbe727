"""What every separator is, how to get one by its name, and how to separate a part of a track.

Shape legend: m samples of a block; a stem's block is `[m, 2]` float32, whatever the input's
channels.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from asha_ray.errors import StemsError
from asha_ray.values import FloatArray, PcmStream

StemBlocks = Iterator[dict[str, FloatArray]]
"""Blocks of all stems, every stem of a block `[m, 2]` with the same m."""


class Separator(Protocol):
    """Takes a track apart into stems.

    Attributes:
        name: as the command line knows it.
        stems: names of the stems, in a fixed order.
        version: changes whenever the stems of the same sound would: it belongs into content hashes.
        sample_rate: Hz at which it works, None if at any; sound of another rate is resampled to it
            and its stems back.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 (documented above)
    @property
    def stems(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def sample_rate(self) -> int | None: ...  # noqa: D102

    def separate(self, pcm: PcmStream, first_sample: int = 0) -> StemBlocks:
        """Stems of a sound, as it comes in; at its sample rate and exactly of its length.

        Args:
            pcm: the sound; samples that are not finite count as silence.
            first_sample: where in the track `pcm` begins; a value that `block_start` gave.
        """

    def block_start(self, start: int, sample_rate: int) -> int:
        """Where to begin reading so that from `start` on the stems are those of the whole track.

        Both are samples of the track at its `sample_rate`. 0 where only the whole will do.
        """

    def block_stop(self, stop: int, sample_rate: int) -> int | None:
        """Where reading may end so that up to `stop` the stems are those of the whole track.

        Both are samples of the track at its `sample_rate`. None where only the whole will do.
        """

    def close(self) -> None:
        """Free what is held between separations; another one takes it again."""

    def cut_near(self, sample: int, sample_rate: int) -> int | None:
        """A sample at or a little behind `sample` where cutting the track costs least.

        None where it cannot be cut.
        """


@dataclass(frozen=True)
class SeparatorSettings:
    """What a separator may need to be made; each reads what concerns it.

    Attributes:
        model: a Spleeter model: `2stems`, `4stems` or `5stems`.
        model_dir: the folder with its files; None looks in the usual places.
        device: where networks run: `cpu`, `cuda`, `mps` or `auto`.
        environment: the virtual environment of the `spleeter` package; None for the usual place.
    """

    model: str = "4stems"
    model_dir: Path | None = None
    device: str = "auto"
    environment: Path | None = None


SEPARATORS = {
    "spleeter": "asha_ray.audio.stems.spleeter",
    "spleeter-tf": "asha_ray.audio.stems.spleeter_tf",
    "hpss": "asha_ray.audio.stems.hpss",
}
"""Name -> the module whose `make(settings)` gives one, imported only when it is asked for."""


def make_separator(name: str, settings: SeparatorSettings | None = None) -> Separator:
    """The separator of that name, ready to work.

    Raises:
        StemsError: if there is none of that name, or it lacks its model or its environment.
    """
    if name not in SEPARATORS:
        raise StemsError(
            f"choosing a separator: there is none named {name!r}; choose from {list(SEPARATORS)}"
        )
    module = importlib.import_module(SEPARATORS[name])
    make = cast(Callable[[SeparatorSettings], Separator], module.make)
    return make(settings or SeparatorSettings())


def separate_range(
    separator: Separator,
    open_at: Callable[[int], PcmStream],
    sample_rate: int,
    start: int,
    stop: int,
) -> StemBlocks:
    """Stems of the samples `start..stop` of a track: what the whole track's would be there.

    No more of the track is read than that needs, so ranges can be separated side by side.

    Args:
        separator: any.
        open_at: opens the track for reading from a given sample on, to its end.
        sample_rate: of the track, in Hz.
        start: first sample.
        stop: sample after the last; the track may end before it.
    """
    position = separator.block_start(start, sample_rate)
    for block in separator.separate(open_at(position), position):
        length = len(next(iter(block.values())))
        first, last = max(0, start - position), min(length, stop - position)
        position += length
        if first < last:
            yield {name: samples[first:last] for name, samples in block.items()}
        if position >= stop:
            return
