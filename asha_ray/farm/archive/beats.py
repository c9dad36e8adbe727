"""The heartbeats of an archive's renders: whoever cleans a work root spares what is in hand."""

import threading
import time
from contextlib import suppress

from asha_ray.errors import AshaError
from asha_ray.farm.archive.shows import Show
from asha_ray.storage.journal import Journal
from asha_ray.storage.work import WorkRoot

BEAT_EVERY_S = 20.0


class Beats:
    """Hearts that beat for the shows in hand, all of them by one thread.

    Args:
        work: the work root.
    """

    def __init__(self, work: WorkRoot) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._journals: dict[str, tuple[float, Journal]] = {}

    def begin(self, show: Show) -> None:
        """A show's render is in hand.

        Raises:
            StorageError: if the work root cannot be written.
        """
        render_id = show.plan.manifest.render_id
        folder = self._work.render_uri(render_id)
        journal = Journal(folder, render_id=render_id, output=show.spec.output)
        journal.beat()
        with self._lock:
            self._journals[show.show_id] = time.monotonic(), journal

    def end(self, show: Show) -> None:
        """It is not any more; two shows of the same sound and settings have one render."""
        with self._lock:
            _, journal = self._journals.pop(show.show_id, (0.0, None))
            folders = {other.folder for _, other in self._journals.values()}
        if journal is not None and journal.folder not in folders:
            journal.status(state="done")
            with suppress(AshaError):
                journal.beat()

    def beat(self) -> None:
        """Say that they live, where it is time to.

        Raises:
            StorageError: if the work root cannot be written.
        """
        now = time.monotonic()
        with self._lock:
            due = [
                (show_id, journal)
                for show_id, (beaten, journal) in self._journals.items()
                if now - beaten > BEAT_EVERY_S
            ]
            for show_id, journal in due:
                self._journals[show_id] = now, journal
        for _, journal in due:
            journal.beat()
