"""A show from its sound to its chunks: heard, named, planned, and compared with what is there."""

import threading
from dataclasses import replace

from asha_ray.errors import FarmError, ResourceError
from asha_ray.farm.archive import outcome
from asha_ray.farm.archive.hear import Heard, Hearing, hear, show_slug
from asha_ray.farm.archive.models import Chosen, Models
from asha_ray.farm.archive.naming import fold, output_name
from asha_ray.farm.archive.rules import ShowFacts
from asha_ray.farm.archive.shows import Show, Sounding
from asha_ray.farm.archive.todo import Todo
from asha_ray.farm.rendering.executor import Executor
from asha_ray.farm.rendering.plan import fitting, make_plan, worker_job
from asha_ray.farm.rendering.space import check_space
from asha_ray.farm.rendering.survey import Survey
from asha_ray.farm.rendering.task import WorkerJob
from asha_ray.motion.family import show_seed
from asha_ray.progress import Progress, Stop
from asha_ray.spec import ArchiveSpec, RenderSpec
from asha_ray.storage import join
from asha_ray.storage.base import basename
from asha_ray.storage.ledger import Ledger, ShowRecord
from asha_ray.storage.work import WorkRoot


class NoRoomError(ResourceError):
    """A disk is full: no show's fault, and over as soon as somebody frees some space."""


class Planner:
    """Plans an archive's shows; may be asked from several threads.

    Args:
        spec: the archive, its paths absolute, with its work root.
        ledger: where names are held.
        executor: where shows are heard.
        found: what the machines are that render.
        models: by uri.
        progress: hears what was chosen.
        stop: ends what is begun.
    """

    def __init__(
        self,
        spec: ArchiveSpec,
        ledger: Ledger,
        executor: Executor,
        found: Survey,
        models: Models,
        progress: Progress,
        stop: Stop,
    ) -> None:
        self._spec, self._ledger, self._executor = spec, ledger, executor
        self._found, self._models, self._progress = found, models, progress
        self._stop, self._cores = stop, executor.cores()
        self._naming = threading.Lock()
        self.work = WorkRoot(str(spec.run.work))

    def job(self, spec: RenderSpec) -> tuple[WorkerJob, Chosen]:
        """What workers must know of a render, and its model."""
        chosen = self._models.get(spec.model)
        note, numerics = self._progress.note, chosen.numerics
        job = worker_job(spec, chosen.files, self._found, self._cores, note, numerics)
        return fitting(job, chosen.files, self._found), chosen

    def general(self, model: str) -> RenderSpec:
        """A render with the archive's own settings, of nothing."""
        spec = self._spec
        return RenderSpec(
            audio=spec.source,
            model=model,
            output=join(spec.output, "show.mp4"),
            video=spec.video,
            features=spec.features,
            motion=spec.motion,
            run=spec.run,
        )

    def plan(self, todo: Todo, began: float) -> Show | ShowRecord:
        """A show with what is there of it, or the record of one that is to be left out.

        Raises:
            AshaError: why it cannot be rendered.
        """
        heard = self._executor.call(hear, self._hearing(todo), self._stop)
        if heard.analysis is None:
            return outcome.skipped(todo, heard, began)
        name, claim = self._claim(todo, heard)
        spec = self._render_spec(todo, heard, name)
        job, chosen = self.job(spec)
        plan = make_plan(spec, heard.analysis, chosen.files, job.numerics, job.encoder)
        chunks = plan.manifest.chunks
        there = {} if spec.run.fresh else self.work.find_segments(chunks).segments
        missing = [chunk for chunk in chunks if chunk.chunk_id not in there]
        num_frames = sum(chunk.num_frames for chunk in missing)
        try:
            check_space(plan.manifest, num_frames, self.work.uri, spec.output)
        except ResourceError as error:
            raise NoRoomError(str(error)) from error
        features = heard.analysis.features
        sounding = Sounding(
            tempo=features.tempo,
            sections=tuple(round(float(time_s), 3) for time_s in features.section_times),
            num_replaced=heard.analysis.num_replaced,
        )
        return Show(
            todo=todo,
            began=began,
            heard=replace(heard, analysis=None),
            sounding=sounding,
            spec=spec,
            plan=plan,
            job=job,
            name=name,
            claim=claim,
            training=dict(chosen.files.training),
            segments=dict(there),
            reused=len(chunks) - len(missing),
        )

    def _hearing(self, todo: Todo) -> Hearing:
        source = todo.source
        return Hearing(
            spec=self._spec,
            key=source.key,
            uri=source.uri,
            sidecar=source.sidecar_uri if source.sidecar else "",
            cue=source.cue_uri,
            work=self.work.uri,
        )

    def _claim(self, todo: Todo, heard: Heard) -> tuple[str, str]:
        """A name that no other show has, and under what it is held."""
        facts, key = heard.facts, todo.source.key
        folder, _, file = key.rpartition("/")
        stem = file.rpartition(".")[0] or file
        words = {
            "path": f"{folder}/{stem}" if folder else stem,
            "folder": folder,
            "stem": stem,
            "show": facts.show,
            "date": facts.date,
            "year": facts.date[:4],
            "title": facts.title,
            "artist": facts.artist,
            "album": facts.album,
            "id": todo.show_id[:12],
        }
        name = output_name(self._spec.names, words)
        with self._naming:  # a storage would let two threads have the same
            for candidate in (name, f"{name} {todo.show_id[:8]}", f"{name} {todo.show_id}"):
                if self._ledger.claim_name(fold(candidate), todo.show_id):
                    return candidate, fold(candidate)
        raise FarmError(f"naming {key}: {name} and what is like it belong to others; change names")

    def _render_spec(self, todo: Todo, heard: Heard, name: str) -> RenderSpec:
        choice, facts = heard.choice, heard.facts
        show = show_slug(facts)
        return RenderSpec(
            audio=todo.source.uri,
            model=choice.model,
            output=join(self._spec.output, f"{name}.mp4"),
            start=choice.start,
            duration=choice.duration,
            seed=show_seed(show) if choice.seed is None else choice.seed,
            show=show,
            episode=_episode(facts),
            video=choice.video,
            features=choice.features,
            motion=choice.motion,
            run=self._spec.run,
        )


def _episode(facts: ShowFacts) -> str:
    """What moves a show's tour on: its day; a month or a year alone has many episodes."""
    if len(facts.date) == len("2023-05-01"):
        return facts.date
    return f"{facts.date} {basename(facts.key)[-200:]}".strip()
