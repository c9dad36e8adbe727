"""The demo's video is worth looking at: the model has learned, and the picture follows the beat."""

import json
from pathlib import Path

import numpy as np
import pytest

import asha_ray
from asha_ray.farm.tools import demo as module
from asha_ray.showcase.music import compose

TOLERANCE_S = 0.07


def f_measure(found: np.ndarray, known: np.ndarray) -> float:
    """Of beats that agree to 70 ms, each counted once."""
    free = list(found)
    hits = 0
    for beat in known:
        near = [time for time in free if abs(time - beat) <= TOLERANCE_S]
        if near:
            free.remove(min(near, key=lambda time: abs(time - beat)))
            hits += 1
    return 2 * hits / (len(found) + len(known))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
def test_the_demo_is_as_good_as_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of its training has to be enough: then all of it is."""
    monkeypatch.setitem(module.TRAINING, "epochs", module.TRAINING["epochs"] // 4)
    result = asha_ray.demo(tmp_path / "demo")

    found = asha_ray.inspect(result.render.output)
    assert found.problems == ()
    assert found.remarks == ()
    assert found.gain_db >= 5
    assert found.distinct_share >= 0.9
    assert found.motion_correlation >= 0.6

    config = json.loads((Path(result.model) / "config.json").read_text())
    assert config["training"]["images"] > 100
    assert config["training"]["epochs"] == 6
    assert (Path(result.model) / "samples" / "progress.png").is_file()

    features = asha_ray.analyze(result.audio, executor="serial")
    assert f_measure(features.beat_times, compose().beat_times) >= 0.95
    envelope = features.decay_exponential
    on_beats = envelope[features.beat_frames]
    assert on_beats.mean() > 2 * envelope.mean(), "the envelope does not tell beats from the rest"
