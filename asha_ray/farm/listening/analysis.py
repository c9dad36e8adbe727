"""Features of a track by uri: of the mix and of its stems, measured once and kept in a work root.

What was measured on the 60 Hz grid is kept apart from what follows from it at a video's rate, so
that another decay or another frame rate costs nothing.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

from asha_ray.audio.decode import require_sound_file, stream_audio
from asha_ray.audio.features_file import read_features, write_features
from asha_ray.audio.grid import GRID_FPS
from asha_ray.audio.grid_features import (
    AnalysisSettings,
    GridFeatures,
    as_features,
    features_at,
    from_features,
)
from asha_ray.audio.parallel import Spread
from asha_ray.errors import FarmError, FeaturesError, NotFoundError, StorageError
from asha_ray.farm.listening.freed import give_back
from asha_ray.farm.listening.stems import (
    SeparatorChoice,
    choose_separator,
    separate_track,
    separator_of,
    stem_stream,
    stems_key,
)
from asha_ray.farm.places import work_root
from asha_ray.progress import NullProgress, Progress
from asha_ray.scratch import scratch_folder
from asha_ray.spec import FeatureSettings
from asha_ray.storage import storage_of
from asha_ray.storage.keys import digest_of, file_digest
from asha_ray.storage.work import WorkRoot
from asha_ray.values import Features, FloatArray, PcmStream

if TYPE_CHECKING:
    from asha_ray.farm.listening.block_file import BlockFile

MAX_NOTE_BYTES = 64 << 10
VERSION = 2
"""Raised when the same sound would be measured as other features."""


@dataclass(frozen=True)
class AnalysisJob:
    """What determines a track's features, beside its sound.

    Attributes:
        audio: the track.
        fps: of the video, as `60` or `30000/1001`.
        settings: how curves follow from what was measured.
        separator: takes the track apart; None for the full mix alone.
        stems: those of its stems that are measured.
    """

    audio: str
    fps: str
    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    separator: SeparatorChoice | None = None
    stems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """A track's features, and what a render must know of its sound.

    Attributes:
        features: at the video's frames, and those of the stems that were asked for.
        audio_digest: sha256 of the sound file.
        features_digest: of what determines the features.
        num_replaced: samples that were NaN or infinite and count as silence.
    """

    features: Features
    audio_digest: str
    features_digest: str
    num_replaced: int


def analysis_job(audio: str, fps: str, settings: FeatureSettings) -> AnalysisJob:
    """The analysis that settings ask for: of the stem that drives, or else of all stems.

    Raises:
        SpecError: if the separator that was asked for does not give the stem.
        StemsError: if the separator lacks its model or its environment.
    """
    separator = choose_separator(settings)
    stems: tuple[str, ...] = ()
    if separator is not None:
        all_stems = separator_of(separator).stems
        stems = all_stems if settings.stem == "mix" else (settings.stem,)
    curves = AnalysisSettings(
        decay_time=settings.decay_time,
        decay_rate=settings.decay_rate,
        decay_shape=settings.decay_shape,
        normalise=settings.normalise,
    )
    return AnalysisJob(audio, fps, curves, separator, stems)


def analyze_uri(
    job: AnalysisJob,
    work: str | None = None,
    spread: Spread = Spread(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> Analysis:
    """Analyse a track, or read what an earlier analysis of the same left in the work root.

    Args:
        job: the track and the settings.
        work: a work root, local or `s3://`; None keeps nothing.
        spread: where blocks of sound are measured and parts separated.
        progress: hears how much was listened to.

    Raises:
        AudioError: if it cannot be decoded.
        NotFoundError: if there is nothing at its uri.
    """
    with storage_of(job.audio).local_copy(job.audio) as path, work_root(work) as root:
        require_sound_file(path)
        audio_digest = file_digest(path)
        listener = _Listener(job, path, audio_digest, root, spread, progress or NullProgress())
        key = listener.key
        known = _read_kept(root, key)
        features, num_replaced = known or listener.listen()
        if known is None:
            _keep(root, key, audio_digest, features, num_replaced)
    return Analysis(features, audio_digest, key, num_replaced)


def kept_features(job: AnalysisJob, work: str) -> Features | None:
    """What an earlier analysis left in a work root, see `kept_analysis`."""
    known = kept_analysis(job, work)
    return known.features if known else None


def kept_analysis(job: AnalysisJob, work: str) -> Analysis | None:
    """What an earlier analysis left in a work root; nothing is measured, nothing written.

    That may have been at another frame rate: what follows from what was measured is no work.

    Raises:
        AudioError: if the track is no file.
        NotFoundError: if there is nothing at its uri.
    """
    with storage_of(job.audio).local_copy(job.audio) as path:
        require_sound_file(path)
        digest = file_digest(path)
        listener = _Listener(job, path, digest, work, Spread(), NullProgress())
    known = _read_kept(work, listener.key) or listener.measured()
    return Analysis(known[0], digest, listener.key, known[1]) if known else None


class _Listener:
    """One analysis: a track's mix and stems, measured side by side."""

    def __init__(
        self,
        job: AnalysisJob,
        path: Path,
        audio_digest: str,
        work: str,
        spread: Spread,
        progress: Progress,
    ) -> None:
        self._job, self._path, self._work, self._spread = job, path, work, spread
        self._progress = progress
        self._audio_digest = audio_digest
        self._stems_key = stems_key(job.separator, audio_digest) if job.separator else ""
        self._stopped = threading.Event()

    @property
    def key(self) -> str:
        """Hash of all that determines the features."""
        job = self._job
        return digest_of(
            {
                "audio": self._audio_digest,
                "fps": job.fps,
                "settings": asdict(job.settings),
                "stems": [self._stems_key, *job.stems] if job.separator else None,
                "version": VERSION,
            }
        )[:40]

    def listen(self) -> tuple[Features, int]:
        """The features, and how many samples were damaged."""
        if self._job.separator:
            self._both()
        else:
            self._finish("mix", self._mix())
        give_back()
        known = self.measured()
        if known is None:
            raise StorageError(
                f"reading what was measured of {self._job.audio} from {self._work}: it is gone or "
                "torn; run the command again"
            )
        return known

    def measured(self) -> tuple[Features, int] | None:
        """What follows from what is kept of the mix and all stems; None where one is not."""
        fps, settings = Fraction(self._job.fps), self._job.settings
        # Read back one by one: while a track was separated, none of this was held.
        mix, parts = self._grid("mix"), {}
        for stem in self._job.stems:
            grid = self._grid(self._source(stem)) if mix is not None else None
            if grid is None:
                return None
            parts[stem] = features_at(grid, fps, settings)
        if mix is None:
            return None
        return replace(features_at(mix, fps, settings), stems=parts), mix.num_replaced

    def _both(self) -> None:
        """The mix in a thread, the stems here; what fails first ends both."""
        with ThreadPoolExecutor(1, thread_name_prefix="asha-mix") as side:
            mix = side.submit(self._mix)
            mix.add_done_callback(self._stop_if_failed)
            try:
                self._stems()
                # Only now, as it takes memory that separating needs.
                self._finish("mix", mix.result())
            except BaseException:
                first = mix.exception() if mix.done() else None
                self._stopped.set()
                mix.add_done_callback(_close)  # as soon as it is there, if it is not yet
                if first is not None:
                    raise first from None
                raise

    def _stop_if_failed(self, mix: "Future[BlockFile | None]") -> None:
        if mix.exception() is not None:
            self._stopped.set()

    def _mix(self) -> "BlockFile | None":
        return self._hear(
            "mix", lambda: self._told(stream_audio(self._path), self._job.separator is None)
        )

    def _stems(self) -> None:
        separator, wanted = self._job.separator, self._job.stems
        assert separator is not None  # noqa: S101 (asked for by whoever calls)
        pcm = self._told(stream_audio(self._path), True)
        work, key = self._work, self._stems_key
        separating = separate_track(
            separator, pcm, work, key, self._spread.parts, self._audio_digest
        )
        # Closed at once when something fails: parts in hand end before their work root does.
        with closing(separating) as parts:
            # The first stem's stream draws the parts on; the others find them stored.
            branches = tee(parts, len(wanted))
            for stem, branch in zip(wanted, branches, strict=True):
                open_stream = partial(stem_stream, branch, stem, work, key)
                self._finish(self._source(stem), self._hear(self._source(stem), open_stream))

    def _source(self, stem: str) -> str:
        return f"{self._stems_key}/{stem}"

    def _measured_key(self, source: str) -> str:
        identity = {
            "audio": self._audio_digest,
            "source": source,
            "normalise": self._job.settings.normalise,
        }
        return digest_of({**identity, "version": VERSION, "measured": True})[:40]

    def _grid(self, source: str) -> GridFeatures | None:
        """What was measured of a source, if it is kept."""
        known = _read_kept(self._work, self._measured_key(source))
        return from_features(*known) if known is not None and known[0].fps == GRID_FPS else None

    def _hear(self, source: str, open_stream: Callable[[], PcmStream]) -> "BlockFile | None":
        """Measure a source block by block; None if what follows from it is kept already."""
        if self._grid(source) is not None:
            return None
        from asha_ray.audio.features import measured_blocks  # brings librosa along
        from asha_ray.farm.listening.block_file import BlockFile

        pcm = open_stream()
        file = BlockFile(pcm.sample_rate)
        try:
            return file.write(measured_blocks(pcm, self._spread.blocks))
        except BaseException:
            file.close()
            raise

    def _finish(self, source: str, heard: "BlockFile | None") -> None:
        """Keep what follows from a source as a whole."""
        if heard is None:
            return
        from asha_ray.audio.features import grid_features

        give_back()
        with heard:
            grid = grid_features(heard.merged(), self._job.settings.normalise)
        key = self._measured_key(source)
        _keep(self._work, key, self._audio_digest, as_features(grid), grid.num_replaced)
        del grid
        give_back()

    def _told(self, pcm: PcmStream, tell: bool) -> PcmStream:
        """The same stream, which tells how far it was read, and ends when nobody wants it."""

        def blocks() -> Iterator[FloatArray]:
            num_samples = num_told = 0
            for block in pcm.blocks:
                if self._stopped.is_set():
                    raise FarmError("listening: it was stopped")
                num_samples += len(block)
                seconds = num_samples // pcm.sample_rate - num_told
                if tell and seconds:
                    self._progress.advance(seconds)
                    num_told += seconds
                yield block

        return PcmStream(pcm.sample_rate, pcm.num_channels, blocks())


def _close(heard: "Future[BlockFile | None]") -> None:
    if heard.exception() is None and (file := heard.result()) is not None:
        file.close()


def _read_kept(work: str, key: str) -> tuple[Features, int] | None:
    root = WorkRoot(work)
    uri, note_uri = root.features_uri(key), root.features_note_uri(key)
    storage = storage_of(work)
    if storage.size(uri) is None or storage.size(note_uri) is None:
        return None
    try:
        if (storage.size(note_uri) or 0) > MAX_NOTE_BYTES:
            return None
        num_replaced = int(json.loads(storage.read(note_uri))["num_replaced"])
        with storage.local_copy(uri) as path:
            return read_features(path, uri), num_replaced
    except (
        FeaturesError,
        NotFoundError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        RecursionError,
    ):
        return None  # torn, or gone meanwhile: measured again


def _keep(work: str, key: str, audio_digest: str, features: Features, num_replaced: int) -> None:
    root = WorkRoot(work)
    with scratch_folder("features") as folder:
        path = folder / "features.npz"
        write_features(features, path)
        storage_of(work).upload(path, root.features_uri(key))
    note = json.dumps({"num_replaced": num_replaced, "audio": audio_digest}).encode()
    storage_of(work).write(root.features_note_uri(key), note)
