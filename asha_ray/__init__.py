"""asha-ray: a render farm that turns music into audio-reactive video.

What the `asha-ray` command can do, Python can do:

    import asha_ray

    asha_ray.train("images", out="model", epochs=100)
    asha_ray.render("track.wav", model="model", out="video.mp4", fps="30000/1001")
    model = asha_ray.load_model("model")
    pictures = model.decode(model.keyframes[:4])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asha_ray.api import (
        analyze,
        archive,
        archive_forget,
        archive_report,
        archive_retry,
        archive_status,
        bench,
        cancel_job,
        clean,
        demo,
        doctor,
        fetch_stems_model,
        follow_job,
        inspect,
        job_log,
        job_status,
        list_jobs,
        load_model,
        path,
        plan,
        render,
        retry_job,
        sample,
        schema,
        setup_spleeter_tf,
        stems,
        submit,
        train,
    )
    from asha_ray.errors import AshaError
    from asha_ray.spec import ArchiveSpec, RenderSpec, TrainSpec

__version__ = "0.1.0"

__all__ = [
    "ArchiveSpec",
    "AshaError",
    "RenderSpec",
    "TrainSpec",
    "__version__",
    "analyze",
    "archive",
    "archive_forget",
    "archive_report",
    "archive_retry",
    "archive_status",
    "bench",
    "cancel_job",
    "clean",
    "demo",
    "doctor",
    "fetch_stems_model",
    "follow_job",
    "inspect",
    "job_log",
    "job_status",
    "list_jobs",
    "load_model",
    "path",
    "plan",
    "render",
    "retry_job",
    "sample",
    "schema",
    "setup_spleeter_tf",
    "stems",
    "submit",
    "train",
]

_HOMES = {
    "ArchiveSpec": "asha_ray.spec",
    "AshaError": "asha_ray.errors",
    "RenderSpec": "asha_ray.spec",
    "TrainSpec": "asha_ray.spec",
}


def __getattr__(name: str) -> Any:
    # torch, ray and librosa take seconds to import; who only asks for the version shall not wait.
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'asha_ray' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "asha_ray.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
