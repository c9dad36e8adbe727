"""Stems of a track: by which separator, spread over the farm in parts, kept in a work root.

A part of a track is separated by whoever is free, stored, and never separated again: not in this
run, not after a crash, not for another render of the same sound.
"""

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asha_ray.audio.parallel import OrderedMap
from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.lossless import range_bits, read_stem, write_stems
from asha_ray.audio.stems.models import MODEL_FILES, locate_model
from asha_ray.audio.stems.parts import PART_S, Part, iter_parts, separate_part
from asha_ray.audio.stems.separator import Separator, SeparatorSettings, make_separator
from asha_ray.errors import NotFoundError, SpecError
from asha_ray.spec import FeatureSettings
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
        SpecError: if the separator that was asked for does not give the stem.
    """
    name, stem = settings.stems, settings.stem
    if name == "none":
        if stem == "mix":
            return None
        name = "hpss" if stem in HPSS_STEMS else "spleeter"
    model = settings.stems_model or _model_with(stem, settings.model_dir)
    given = HPSS_STEMS if name == "hpss" else KINDS[model].stems
    if stem != "mix" and stem not in given:
        source = name if name == "hpss" else f"{name} with {model}"
        raise SpecError(
            f"features.stem: {source} gives {', '.join(given)}, not {stem}; choose one of these, "
            "or another --stems"
        )
    return SeparatorChoice(name, model, settings.model_dir)


def default_separator(model: str | None, model_dir: str | None) -> tuple[SeparatorChoice, str]:
    """Spleeter where its model is, else hpss; and a line that says why."""
    name = model or DEFAULT_MODEL
    if model_dir is not None or locate_model(name) is not None:
        return SeparatorChoice("spleeter", name, model_dir), f"separating with spleeter ({name})"
    return (
        SeparatorChoice("hpss"),
        f"separating with hpss, as no Spleeter model is here: `asha-ray stems --fetch {name}`",
    )


@functools.lru_cache(maxsize=2)
def separator_of(choice: SeparatorChoice) -> Separator:
    """The separator, made once in each process.

    Raises:
        StemsError: if its model or environment is missing or damaged.
    """
    if choice.model_dir is None or not is_s3(choice.model_dir):
        return make_separator(choice.name, _settings(choice, choice.model_dir))
    with tempfile.TemporaryDirectory(prefix="asha-stems-") as folder:
        for file in MODEL_FILES:
            try:
                uri = join(choice.model_dir, file)
                storage_of(uri).download(uri, Path(folder) / file)
            except NotFoundError:
                continue  # the separator says which is missing
        return make_separator(choice.name, _settings(choice, folder))


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
) -> Iterator[StemPart]:
    """Separate a track part by part and store its stems; yields parts in order, as they are there.

    Args:
        choice: by which separator.
        pcm: the track; not read if all its stems are stored already.
        work: a work root, local or `s3://`.
        key: from `stems_key`.
        map: spreads the parts.

    Raises:
        AshaError: one of its kinds; parts that were finished are kept.
    """
    store = StemStore(work, key)
    known = store.all_parts()
    if known is not None:
        yield from known
        return
    num_parts = 0
    parts = iter_parts(pcm, separator_of(choice), PART_S)
    for part in map(functools.partial(_separate_and_store, choice, work, key), parts):
        num_parts += 1
        yield part
    store.finish(num_parts)


def stem_stream(parts: Iterator[StemPart], stem: str, work: str, key: str) -> PcmStream:
    """One stem of a track as a stream, as its parts come in."""
    first = next(parts)
    store = StemStore(work, key)

    def blocks() -> Iterator[FloatArray]:
        part: StemPart | None = first
        with tempfile.TemporaryDirectory(prefix="asha-stem-") as folder:
            path = Path(folder) / "part.flac"
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
    _use_one_thread()
    separator, bits = separator_of(choice), range_bits(part.samples)
    with tempfile.TemporaryDirectory(prefix="asha-stems-") as folder:
        paths = {stem: Path(folder) / f"{stem}.flac" for stem in separator.stems}
        write_stems(separate_part(separator, part), paths, part.sample_rate, bits)
        files = {stem: stem_file(path) for stem, path in paths.items()}
        stored = StemPart(part.number, part.start, part.stop, part.sample_rate, bits, files)
        store.commit(stored, paths)
    return stored


def _use_one_thread() -> None:
    # Parts are spread over cores, and sums on one thread are the same on every machine's number of
    # them, so that a render's stems are the same in one process and on a farm.
    import torch

    torch.set_num_threads(1)


def _settings(choice: SeparatorChoice, folder: str | None) -> SeparatorSettings:
    return SeparatorSettings(choice.model, Path(folder) if folder else None, choice.device)


def _model_with(stem: str, model_dir: str | None) -> str:
    """The Spleeter model that has a stem: of several, the first that is here, else the first."""
    if stem == "mix":
        return DEFAULT_MODEL
    names = [DEFAULT_MODEL, *(name for name in KINDS if name != DEFAULT_MODEL)]
    fitting = [name for name in names if stem in KINDS[name].stems] or [DEFAULT_MODEL]
    folder = Path(model_dir) if model_dir and not is_s3(model_dir) else None
    return next((name for name in fitting if locate_model(name, folder)), fitting[0])
