"""A show is heard: its tags, the settings that are meant for it, and its features."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from asha_ray.audio.cue import MAX_CUE_BYTES, read_cue
from asha_ray.audio.decode import require_sound_file, stream_audio
from asha_ray.audio.parallel import Spread, map_in_threads
from asha_ray.audio.tag_text import normal_date, one_line
from asha_ray.audio.tags import read_tags
from asha_ray.errors import AshaError, NotFoundError
from asha_ray.farm.archive.naming import slug, words_from_path
from asha_ray.farm.archive.rules import (
    TEXTS,
    ShowChoice,
    ShowFacts,
    may_fit,
    read_sidecar,
    resolve,
)
from asha_ray.farm.listening.analysis import Analysis, analysis_job, analyze_uri
from asha_ray.progress import Progress
from asha_ray.spec import ArchiveSpec, Sidecar
from asha_ray.storage import storage_of
from asha_ray.storage.base import basename
from asha_ray.values import Tags

HEARING_THREADS = 2
"""Of each show; many are heard side by side."""


@dataclass(frozen=True)
class Hearing:
    """What is to be heard.

    Attributes:
        spec: the archive.
        key: of the show, below the archive's source.
        uri: of its sound.
        sidecar: uri of its settings; empty without.
        cue: uri of its cue sheet; empty without.
        work: the work root.
    """

    spec: ArchiveSpec
    key: str
    uri: str
    sidecar: str
    cue: str
    work: str


@dataclass(frozen=True)
class Heard:
    """What was heard.

    Attributes:
        facts: what rules go by.
        tags: of the video to come; without artwork, which may be large.
        choice: the settings of this show.
        analysis: of its sound; None where it is to be skipped.
    """

    facts: ShowFacts
    tags: Tags
    choice: ShowChoice
    analysis: Analysis | None


def hear(hearing: Hearing, progress: Progress) -> Heard:
    """Read a show's tags and settings, and measure its sound.

    Raises:
        AshaError: one of its kinds, which names the show as it is called in the archive.
    """
    with storage_of(hearing.uri).local_copy(hearing.uri) as path:
        try:
            return _hear(hearing, path, progress)
        except AshaError as error:
            told = str(error).replace(str(path), hearing.uri)
            if told == str(error):
                raise
            raise type(error)(told) from error


def _hear(hearing: Hearing, path: Path, progress: Progress) -> Heard:
    require_sound_file(path)
    sidecar = read_sidecar(hearing.sidecar) if hearing.sidecar else None
    said = _texts(sidecar)
    words = words_from_path(hearing.key, hearing.spec.paths)
    tags = _show_tags(hearing, path, said, words)
    facts = _show_facts(hearing, tags, said, words)
    spec = hearing.spec
    if _goes_by_duration(spec, hearing.key):
        facts = replace(facts, duration_s=_duration_s(path, progress))
    choice = resolve(spec, facts, sidecar)
    analysis = None
    if not choice.skip:
        job = analysis_job(str(path), choice.video.fps, choice.features)
        threads = map_in_threads(HEARING_THREADS)
        analysis = analyze_uri(job, hearing.work, Spread(threads, threads), progress)
        facts = replace(facts, duration_s=analysis.features.duration_s)
    return Heard(facts, replace(tags, artwork=b""), choice, analysis)


def _texts(sidecar: Sidecar | None) -> dict[str, str]:
    """What a sidecar says of its show, in lines as those of other tags."""
    if sidecar is None:
        return {}
    texts = {name: one_line(getattr(sidecar, name) or "") for name in TEXTS}
    return {**texts, "date": normal_date(texts["date"])}


def _show_tags(
    hearing: Hearing, path: Path, said: Mapping[str, str], words: Mapping[str, str]
) -> Tags:
    """What a sidecar says of a show, else its file, else its cue sheet, else its path."""
    stem = basename(hearing.key).rpartition(".")[0] or basename(hearing.key)
    own = read_tags(path)
    sheet = _sheet(hearing.cue)
    day = words.get("date") or words.get("year", "")
    return Tags(
        title=said.get("title") or own.title or sheet.title or words.get("title") or stem,
        artist=said.get("artist") or own.artist or sheet.artist or words.get("artist", ""),
        album=said.get("album") or own.album or words.get("album", ""),
        date=said.get("date") or own.date or sheet.date or day,
        chapters=sheet.chapters or own.chapters,
        artwork=own.artwork,
    )


def _show_facts(
    hearing: Hearing, tags: Tags, said: Mapping[str, str], words: Mapping[str, str]
) -> ShowFacts:
    """What rules go by: the series is what a sidecar or the path says, else its folder's name."""
    folder = basename(hearing.key.rpartition("/")[0])
    series = (
        said.get("show")
        or words.get("show")
        or folder
        or tags.album
        or tags.artist
        or basename(hearing.spec.source)
    )
    return ShowFacts(
        key=hearing.key,
        show=series,
        title=tags.title,
        artist=tags.artist,
        album=tags.album,
        date=tags.date,
        duration_s=None,
    )


def show_slug(facts: ShowFacts) -> str:
    """What makes shows kin."""
    return slug(facts.show) or "show"


def _sheet(uri: str) -> Tags:
    if not uri or (storage_of(uri).size(uri) or 0) > MAX_CUE_BYTES:
        return Tags()
    try:
        return read_cue(storage_of(uri).read(uri))
    except NotFoundError:  # gone meanwhile
        return Tags()


def _goes_by_duration(spec: ArchiveSpec, key: str) -> bool:
    return any(
        may_fit(rule, key)
        for rule in spec.rules
        if rule.match.min_duration is not None or rule.match.max_duration is not None
    )


def _duration_s(path: Path, progress: Progress) -> float:
    """Seconds that decode, whatever a header says."""
    pcm = stream_audio(path)
    num_samples = 0
    for block in pcm.blocks:
        num_samples += len(block)
        progress.advance(0)
    return float(Fraction(num_samples, pcm.sample_rate))
