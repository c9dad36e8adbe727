"""Stems of a track: by which separator, spread over the farm in parts, kept in a work root.

A part of a track is separated by whoever is free, stored, and never separated again: not in this
run, not after a crash, not for another render of the same sound.
"""

import functools
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from asha_ray.audio.blocks import Tally, clean_blocks
from asha_ray.audio.parallel import OrderedMap
from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.lossless import range_bits, read_stem, write_stems
from asha_ray.audio.stems.models import MODEL_FILES, cache_root, kind_of, locate_model
from asha_ray.audio.stems.parts import PART_S, Part, iter_parts, separate_part
from asha_ray.audio.stems.separator import Separator, SeparatorSettings, make_separator
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.errors import NotFoundError, SpecError, StemsError
from asha_ray.farm.listening.freed import give_back
from asha_ray.farm.places import absolute
from asha_ray.scratch import scratch_folder
from asha_ray.spec import FeatureSettings, StemsSettings
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.storage.keys import digest_of
from asha_ray.storage.stems import StemPart, StemStore, stem_file
from asha_ray.values import FloatArray, PcmStream

VERSION = 1
"""Raised when the same sound would be stored as other stems."""

HPSS_STEMS = ("harmonic", "percussive")
DEFAULT_MODEL = "4stems"


@dataclass(frozen=True)
class SeparatorChoice:
    """A separator, by what it takes to make one anywhere.

    Attributes:
        name: `hpss`, `spleeter` or `spleeter-tf`.
        model: a Spleeter model.
        model_dir: the folder with its files, local or `s3://`; None for the usual places.
        device: where its networks run. CPU unless told otherwise: that gives the same stems on
            every machine of a farm, and costs a twentieth of the sound's length on one core.
    """

    name: str
    model: str = DEFAULT_MODEL
    model_dir: str | None = None
    device: str = "cpu"


def choose_separator(settings: FeatureSettings) -> SeparatorChoice | None:
    """The separator that a render or an analysis needs, None for the full mix alone.

    Without a word on it, the stem decides: `harmonic` and `percussive` are hpss's, all others
    Spleeter's; and of Spleeter's models, the one that has the stem.

    Raises:
        SpecError: if the separator that was asked for does not give the stem, or there is nothing
            to separate for.
    """
    name, stem = settings.stems, settings.stem
    model_dir = settings.model_dir and absolute(settings.model_dir)
    if name == "none":
        if stem == "mix":
            if settings.stems_model or model_dir:
                raise SpecError(
                    "features.stems_model: a model was named, and nothing to separate; give --stem "
                    "or --stems too"
                )
            return None
        name = "hpss" if stem in HPSS_STEMS else "spleeter"
    model = settings.stems_model or _model_with(stem, model_dir)
    given = HPSS_STEMS if name == "hpss" else KINDS[model].stems
    if stem != "mix" and stem not in given:
        source = name if name == "hpss" else f"{name} with {model}"
        raise SpecError(
            f"features.stem: {source} gives {', '.join(given)}, not {stem}; choose one of these, "
            "or another --stems"
        )
    return SeparatorChoice(name, model, model_dir)


def separator_for(settings: StemsSettings) -> tuple[SeparatorChoice, str]:
    """What separates a track, and a line that says why.

    Where nothing is said, Spleeter if its model is here, else hpss; who names a model, its folder
    or a device means Spleeter.
    """
    model_dir = settings.model_dir and absolute(settings.model_dir)
    model = settings.stems_model or _model_with("mix", model_dir)
    meant = settings.stems_model or model_dir or settings.device != "cpu"
    name = settings.separator or ("spleeter" if meant or locate_model(model) else "hpss")
    choice = SeparatorChoice(name, model, model_dir, settings.device)
    if name == "hpss":
        choice = SeparatorChoice(name)
        missing = f", as no Spleeter model is here: `asha-ray stems --fetch {DEFAULT_MODEL}`"
        return choice, f"separating with hpss{'' if settings.separator else missing}"
    return choice, f"separating with {name} ({model})"


@functools.lru_cache(maxsize=2)
def separator_of(choice: SeparatorChoice) -> Separator:
    """The separator, made once in each process.

    Raises:
        StemsError: if its model or environment is missing or damaged.
    """
    folder = choice.model_dir and Path(choice.model_dir)
    if choice.model_dir is not None and is_s3(choice.model_dir):
        folder = _cached_model(choice.model_dir)
    settings = SeparatorSettings(choice.model, folder or None, choice.device)
    return make_separator(choice.name, settings)


def stems_key(choice: SeparatorChoice, audio_digest: str) -> str:
    """What the stems of a sound are called in a work root."""
    return digest_of(
        {
            "audio": audio_digest,
            "separator": separator_of(choice).version,
            "device": choice.device,
            "part_s": PART_S,
            "version": VERSION,
        }
    )[:40]


def separate_track(
    choice: SeparatorChoice,
    pcm: PcmStream,
    work: str,
    key: str,
    map: OrderedMap,  # noqa: A002
    audio_digest: str = "",
) -> Generator[StemPart, None, None]:
    """Separate a track part by part and store its stems; yields parts in order, as they are there.

    Args:
        choice: by which separator.
        pcm: the track; not read if all its stems are stored already.
        work: a work root, local or `s3://`.
        key: from `stems_key`.
        map: spreads the parts.
        audio_digest: sha256 of the sound file; by it, it is known later who needs the stems.

    Raises:
        AshaError: one of its kinds; parts that were finished are kept.
    """
    store = StemStore(work, key)
    known = store.all_parts()
    if known is not None:
        yield from known
        return
    num_parts, tally = 0, Tally()
    clean = replace(pcm, blocks=clean_blocks(pcm, tally))
    parts = iter_parts(clean, separator_of(choice), PART_S)
    try:
        with _threads_kept():
            for part in map(functools.partial(_separate_and_store, choice, work, key), parts):
                num_parts += 1
                yield part
    finally:
        separator_of.cache_clear()  # and with it a model, which nobody needs from here on
    store.finish(num_parts, tally.num_replaced, audio_digest)


def stem_stream(parts: Iterator[StemPart], stem: str, work: str, key: str) -> PcmStream:
    """One stem of a track as a stream, as its parts come in."""
    first = next(parts)
    store = StemStore(work, key)

    def blocks() -> Iterator[FloatArray]:
        part: StemPart | None = first
        with scratch_folder("stem") as folder:
            path = folder / "part.flac"
            while part is not None:
                store.fetch(part, stem, path)
                yield from read_stem(path, part.bits)
                part = next(parts, None)

    return PcmStream(first.sample_rate, 2, blocks())


def _separate_and_store(choice: SeparatorChoice, work: str, key: str, part: Part) -> StemPart:
    store = StemStore(work, key)
    known = store.find(part.number)
    if known is not None:
        return known
    if choice.name == "spleeter":
        _use_one_thread()
    separator, bits = separator_of(choice), range_bits(part.samples)
    with scratch_folder("stems") as folder:
        paths = {stem: folder / f"{stem}.flac" for stem in separator.stems}
        write_stems(separate_part(separator, part), paths, part.sample_rate, bits)
        separator.close()
        files = {stem: stem_file(path) for stem, path in paths.items()}
        stored = StemPart(part.number, part.start, part.stop, part.sample_rate, bits, files)
        store.commit(stored, paths)
    give_back()
    return stored


def _use_one_thread() -> None:
    # Parts are spread over cores, and sums on one thread are the same on every machine's number of
    # them, so that a render's stems are the same in one process and on a farm.
    import torch

    torch.set_num_threads(1)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Leave torch's number of threads as it is found, if torch is there at all."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _cached_model(uri: str) -> Path:
    """A bucket's model in this machine's cache, under what its files are."""
    cache = cache_root() / "spleeter" / "buckets"
    cache.mkdir(parents=True, exist_ok=True)
    with scratch_folder("fetch", cache) as scratch:
        fetched = scratch / "model"
        fetched.mkdir()
        for file in MODEL_FILES:
            with suppress(NotFoundError):  # told below
                storage_of(uri).download(join(uri, file), fetched / file)
        if not all((fetched / file).is_file() for file in MODEL_FILES):
            raise StemsError(
                f"looking for a Spleeter model in {uri}: it does not hold all of "
                f"{', '.join(MODEL_FILES)}; put an unpacked archive there"
            )
        target = cache / Checkpoint(fetched).digest
        with suppress(OSError):  # the same is there already
            fetched.rename(target)
    return target


def _model_with(stem: str, model_dir: str | None) -> str:
    """The Spleeter model that has a stem: of several, the first that is here, else the first."""
    folder = Path(model_dir) if model_dir and not is_s3(model_dir) else None
    if folder is not None and (kind := kind_of(folder)) is not None:
        return kind
    if stem == "mix":
        return DEFAULT_MODEL
    names = [DEFAULT_MODEL, *(name for name in KINDS if name != DEFAULT_MODEL)]
    fitting = [name for name in names if stem in KINDS[name].stems] or [DEFAULT_MODEL]
    return next((name for name in fitting if locate_model(name, folder)), fitting[0])
