"""Other runs on the same archive: what they have in hand is left to them."""

import os
import platform
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from asha_ray.storage.journal import is_alive
from asha_ray.storage.ledger import Ledger

LOOK_EVERY_S = 5.0
MAX_PID = 1 << 31


class Others:
    """The runs that are at work beside this one, as they were a few seconds ago.

    Args:
        ledger: of the archive.
        own: this run's driver.
    """

    def __init__(self, ledger: Ledger, own: str) -> None:
        self._ledger, self._own = ledger, own
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._there = False
        self._keys: frozenset[str] = frozenset()
        self._ended: set[str] = set()

    def are_there(self) -> bool:
        """Whether there are any."""
        self._look()
        return self._there

    def have(self, key: str) -> bool:
        """Whether one of them has a show in hand."""
        self._look()
        return key in self._keys

    def _look(self) -> None:
        with self._lock:
            if time.monotonic() - self._looked < LOOK_EVERY_S:
                return
            runs = self._ledger.runs(but=self._ended)
            living = [run for run in living_runs(runs) if run.get("driver") != self._own]
            # One that was silent for a while may speak again; one that has said its last does not.
            self._ended |= {str(run["run"]) for run in runs if run.get("state") != "running"}
            self._there = bool(living)
            self._keys = frozenset(key for run in living for key in keys_in_hand(run))
            self._looked = time.monotonic()


def living_runs(runs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those whose driver lives; one of this machine whose process is gone does not."""
    return [run for run in runs if is_alive(run) and not _is_gone(run)]


def keys_in_hand(run: Mapping[str, Any]) -> list[str]:
    """The shows that a run has in hand."""
    keys = run.get("in_hand")
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _is_gone(run: Mapping[str, Any]) -> bool:
    pid = run.get("pid")
    if run.get("host") != platform.node() or type(pid) is not int or not 0 < pid < MAX_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
