"""What a machine takes beside frames: sums of what was measured, and what could not be is told."""

from pathlib import Path

import pytest

from asha_ray.errors import FarmError
from asha_ray.farm.tools import bench_machine as module
from asha_ray.farm.tools.bench_machine import measure_machine
from asha_ray.progress import NullProgress


class Notes(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float] | FarmError]:
    """Executor -> seconds of a command and its render's own, or why there are none."""
    starts: dict[str, tuple[float, float] | FarmError] = {"serial": (5.0, 3.0), "ray": (10.0, 8.0)}

    def starting_s(executor: str, model: str, moment: Path, folder: Path) -> tuple[float, float]:
        found = starts[executor]
        if isinstance(found, FarmError):
            raise found
        return found

    monkeypatch.setattr(module, "_starting_s", starting_s)
    monkeypatch.setattr(module, "_listening_s", lambda moment, sound: 0.5)
    monkeypatch.setattr(module, "_joining_s", lambda sound, seconds, folder: 0.25)
    monkeypatch.setattr(module, "QUICK_SOUND_S", 2)
    return starts


def test_rates_are_seconds_of_sound_a_second() -> None:
    found = measure_machine("cpu", "model", quick=True)
    assert (found.listen, found.join) == (4, 8)
    assert (found.import_s, found.start_s) == (2, {"serial": 3, "ray": 8})


def test_where_ray_cannot_start_the_rest_is_kept(told: dict) -> None:
    """What else was measured in minutes would be lost."""
    told["ray"] = FarmError("starting Ray: no port is free; stop something")
    notes = Notes()
    found = measure_machine("cpu", "model", quick=True, progress=notes)
    assert (found.import_s, found.start_s) == (2, {"serial": 3})
    assert notes.notes == ["starting Ray: no port is free; stop something"]


def test_where_nothing_can_be_rendered_there_is_no_rate(told: dict) -> None:
    told["serial"] = FarmError("rendering: no encoder; install one")
    with pytest.raises(FarmError, match="no encoder"):
        measure_machine("cpu", "model", quick=True)
