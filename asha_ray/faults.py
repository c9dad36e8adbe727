"""Named steps at which a test can stop a process, to kill it exactly there.

Nothing happens unless `ASHA_STOP_AT` says `step:n:folder`: whoever reaches that step as the n-th,
in any process on the machine, writes its process id to `folder/stopped` and waits for its end.
"""

import os
import time
from pathlib import Path

VARIABLE = "ASHA_STOP_AT"

STEPS = {
    "listened": "the driver has the features",
    "planned": "the driver has written the manifest",
    "encoded": "a worker has encoded a segment",
    "verified": "it has checked it",
    "uploaded": "it has stored it, and not yet its record",
    "recorded": "it has stored the record",
    "committed": "the driver has heard of it",
    "rendered": "the driver has all segments",
    "joining": "the first segment is being joined",
    "joined": "the video is whole, in a temporary file",
    "forgotten": "the record of an older video is deleted",
    "published": "the video has its name, and not yet its record",
    "finished": "the record is written",
}


def reach(step: str) -> None:
    """Tell that a step is reached."""
    wanted = os.environ.get(VARIABLE)
    if wanted and wanted.startswith(f"{step}:"):
        _, number, folder = wanted.split(":", 2)
        _stop(int(number), Path(folder))


def _stop(number: int, folder: Path) -> None:
    for count in range(1, number + 1):
        try:
            (folder / f"reached-{count}").touch(exist_ok=False)
        except FileExistsError:
            continue
        if count == number:
            unfinished = folder / "stopped.new"
            unfinished.write_text(str(os.getpid()))
            unfinished.rename(folder / "stopped")
            while True:
                time.sleep(60)
        return
