"""What can be known of a job before anything is sent: that it could be done where it is to go."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from asha_ray.errors import ModelError, NotFoundError, ResourceError, SpecError
from asha_ray.farm.archive.models import models_of
from asha_ray.farm.archive.naming import check_patterns
from asha_ray.farm.archive.rules import check_rules
from asha_ray.farm.models import load_files, load_keyframes
from asha_ray.farm.training.dataset import list_images
from asha_ray.spec import ArchiveSpec, JobSpec, RenderSpec, TrainSpec
from asha_ray.storage import join, storage_of
from asha_ray.storage.base import is_s3
from asha_ray.vae.model_dir import CONFIG, FILES


def check_places(spec: JobSpec, work: str, *, shared_disk: bool) -> None:
    """Make sure that a cluster can write where a job's results go.

    Raises:
        SpecError: if it lies on this machine alone.
        UnwritableError: if it cannot be written.
    """
    output = spec.output if isinstance(spec, RenderSpec) else join(spec.output, CONFIG)
    places = [("output", output), ("work", join(work, "jobs", "job.json"))]
    if isinstance(spec, ArchiveSpec) and not is_s3(spec.source) and not shared_disk:
        raise SpecError(
            f"source: {spec.source} lies on this machine, and an archive is not sent along; copy "
            "it into a bucket, or --shared-disk where all machines see the same path"
        )
    if not isinstance(spec, TrainSpec) and spec.run.work:
        places.append(("run.work", join(spec.run.work, "segments", "segment.mp4")))
    for field, uri in places:
        if not is_s3(uri) and not shared_disk:
            raise SpecError(
                f"{field}: {uri} lies on this machine, and a cluster cannot write there; give "
                "s3://…, or --shared-disk where all its machines see the same path"
            )
        storage_of(uri).check_writable(uri)


def check_inputs(spec: JobSpec) -> None:
    """Make sure that what a job is made of is there, as far as that shows without reading it all.

    Raises:
        AshaError: that says which is not, and why.
    """
    if isinstance(spec, TrainSpec):
        list_images(spec.images)
        return
    if isinstance(spec, ArchiveSpec):
        _check_archive(spec)
    elif storage_of(spec.audio).size(spec.audio) is None:
        what = "it is a folder" if Path(spec.audio).is_dir() else "there is no such file"
        raise NotFoundError(f"audio: {spec.audio}: {what}; check the path")
    _check_model(spec.model)
    if spec.motion.keyframes and not is_s3(spec.motion.keyframes):
        load_keyframes(spec.motion.keyframes, load_files(spec.model).architecture.latent_dim)
    folder = spec.features.model_dir
    if folder and next(storage_of(folder).list(folder), None) is None:
        raise NotFoundError(
            f"features.model_dir: {folder}: there is no such folder; check the path"
        )


def _check_archive(spec: ArchiveSpec) -> None:
    check_patterns(spec)
    check_rules(spec)
    if next(storage_of(spec.source).list(spec.source), None) is None:
        raise NotFoundError(f"source: {spec.source}: there is no file below it; check the path")
    for model in models_of(spec)[1:]:
        _check_model(model)


def _check_model(uri: str) -> None:
    if not is_s3(uri):
        load_files(uri, decoder_only=True)
        return
    # A bucket's may be large and far: that its parts are there will do here.
    missing = [name for name in FILES if storage_of(uri).size(join(uri, name)) is None]
    if missing:
        raise ModelError(
            f"model: {uri}: there is no {missing[0]} in it; give a folder that `asha-ray train` "
            "wrote"
        )


def check_room(spec: JobSpec, nodes: Sequence[Mapping[str, float]], *, can_grow: bool) -> None:
    """Make sure that a cluster could ever hold what a job asks for.

    Args:
        spec: the job.
        nodes: what each of them has in all.
        can_grow: whether nodes of other kinds may join.

    Raises:
        ResourceError: with what is asked for, and what there is.
    """
    if can_grow:
        return
    num_cpus = sum(node.get("CPU", 0) for node in nodes)
    if num_cpus < 1:
        raise ResourceError(
            f"using the Ray cluster: none of its {len(nodes)} nodes has a CPU to work on, and it "
            "does not grow by itself; add a worker node"
        )
    wanted = worker_needs(spec)
    if any(all(node.get(kind, 0) >= amount for kind, amount in wanted.items()) for node in nodes):
        return
    asked = ", ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
    largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    has = ", ".join(f"{largest.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
    raise ResourceError(
        f"using the Ray cluster: this cluster has no node that can hold a worker, which takes "
        f"{asked}; its largest has {has}; ask for less, or add a larger node"
    )


def worker_needs(spec: JobSpec) -> dict[str, float]:
    """What one worker of a job needs at least, as Ray counts it."""
    needs = {"CPU": 1.0}
    if not isinstance(spec, TrainSpec) and spec.run.gpus_per_worker:
        needs["GPU"] = spec.run.gpus_per_worker
    return needs
