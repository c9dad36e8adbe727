"""`stems`: a track to one lossless file for each of its stems."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile

from asha_ray.audio.decode import require_sound_file, stream_audio
from asha_ray.errors import StorageError
from asha_ray.farm.listening.stems import (
    separate_track,
    separator_for,
    separator_of,
    stem_stream,
    stems_key,
)
from asha_ray.farm.places import absolute, put, work_root
from asha_ray.farm.rendering.executor import executor_for
from asha_ray.progress import NullProgress, Progress
from asha_ray.spec import StemsSettings
from asha_ray.storage import join, storage_of
from asha_ray.storage.keys import file_digest
from asha_ray.storage.stems import StemStore
from asha_ray.values import PcmStream

WAV_BYTES = 4_000_000_000
"""A WAV file's sizes have 32 bits; a longer one is RF64, which is the same with 64 (EBU 3306)."""


@dataclass(frozen=True)
class StemsResult:
    """What a separation left.

    Attributes:
        stems: name of each stem -> its file.
        separator: which one.
        version: of it and its model.
        sample_rate: Hz, as the track's.
        duration_s: seconds, as the track's.
    """

    stems: dict[str, str]
    separator: str
    version: str
    sample_rate: int
    duration_s: float


def stems(
    audio: str, out: str, settings: StemsSettings, progress: Progress | None = None
) -> StemsResult:
    """Separate a track; write one WAV file of 32-bit floats for each stem, as long as the track.

    Args:
        audio: a sound file, local or `s3://`.
        out: a folder or prefix for the files.
        settings: by which separator, and where.
        progress: hears how much was separated.

    Raises:
        AshaError: one of its kinds; no stem's file is left half-written.
    """
    progress = progress or NullProgress()
    audio, out = absolute(audio), absolute(out)
    choice, why = separator_for(settings)
    progress.note(why)
    separator = separator_of(choice)
    targets = {stem: join(out, f"{stem}.wav") for stem in separator.stems}
    for target in targets.values():
        storage_of(target).check_writable(target)
    work = settings.work and absolute(settings.work)
    progress.stage("separating", unit="s of sound")
    with (
        executor_for(settings.executor) as executor,
        work_root(work, out) as root,
        storage_of(audio).local_copy(audio) as path,
    ):
        require_sound_file(path)
        audio_digest = file_digest(path)
        key = stems_key(choice, audio_digest)
        parts = []
        spread, pcm = executor.spread(choice.device), stream_audio(path)
        separating = separate_track(choice, pcm, root, key, spread.parts, audio_digest)
        with closing(separating) as separated:
            for part in separated:
                parts.append(part)
                progress.advance((part.stop - part.start) // part.sample_rate)
        if num_replaced := StemStore(root, key).num_replaced():
            progress.note(f"{num_replaced} damaged samples (NaN, infinite) count as silence")
        progress.stage("writing", len(targets), "stems")
        for stem, target in targets.items():
            pcm = stem_stream(iter(parts), stem, root, key)
            put(target, partial(_write_wav, pcm, parts[-1].stop))
            progress.advance(detail=stem)
    return StemsResult(
        stems=targets,
        separator=choice.name,
        version=separator.version,
        sample_rate=parts[-1].sample_rate,
        duration_s=parts[-1].stop / parts[-1].sample_rate,
    )


def _write_wav(pcm: PcmStream, num_samples: int, path: Path) -> None:
    long = num_samples * pcm.num_channels * 4 > WAV_BYTES
    kind = {"subtype": "FLOAT", "format": "RF64" if long else "WAV"}
    try:
        with soundfile.SoundFile(path, "w", pcm.sample_rate, pcm.num_channels, **kind) as file:
            for block in pcm.blocks:
                file.write(block)
    except soundfile.LibsndfileError as error:
        raise StorageError(f"writing a stem to {path}: {error}; free some space") from error
