"""The native separator against the spleeter package itself, on models of random weights.

The difference is the package's: against the same networks in float64 the native stems have 120 dB
and more, the package's 95 to 103, its Fourier transforms being coarse; worst where a stem is quiet
beside the mix.

The package's environment is built once, under `.venv`: about 2.4 GB and minutes. So this runs where
ASHA_PARITY_MODELS names the models to compare: `2stems 4stems 5stems`.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import asha_ray
from asha_ray.audio.stems.spleeter import FRAME_LENGTH, SEGMENT, SpleeterSeparator
from asha_ray.audio.stems.spleeter_tf import SpleeterTfSeparator, setup_tf
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ENVIRONMENT = Path(asha_ray.__file__).parents[1] / ".venv" / "spleeter-tf"
MODELS = os.environ.get("ASHA_PARITY_MODELS", "").split()


@pytest.fixture(scope="module")
def environment():
    # Whoever names models wants them compared: an environment that cannot be built is a failure.
    return setup_tf(ENVIRONMENT)


@pytest.fixture(scope="module", params=MODELS)
def pair(request, environment, tmp_path_factory):
    """The native separator and the package, on one model."""
    folder = tmp_path_factory.mktemp("models") / request.param
    script = Path(__file__).with_name("spleeter_model.py")
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-I", script, request.param, folder], check=True, capture_output=True, timeout=900
    )
    package = SpleeterTfSeparator(request.param, folder, environment)
    yield SpleeterSeparator(request.param, folder, "cpu"), package
    package.close()


def noise(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.normal(0, 0.1, (round(seconds * 44_100), 2)).astype(np.float32)


EXCERPT = song(SEGMENT / 44_100 + 1) + 0.5 * noise(SEGMENT / 44_100 + 1)
SOUNDS = {
    "music": song(26),
    "noise": noise(14),
    "one sample": EXCERPT[10_000:10_001],
    "one frame": EXCERPT[10_000:][:FRAME_LENGTH],
    "a segment less one": EXCERPT[: SEGMENT - 1],
    "a segment": EXCERPT[:SEGMENT],
    "a segment and one": EXCERPT[: SEGMENT + 1],
    "the first segment's end": EXCERPT[: SEGMENT - FRAME_LENGTH],
    "one behind it": EXCERPT[: SEGMENT - FRAME_LENGTH + 1],
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_native_stems_are_the_packages(pair, sound):
    native, package = pair
    samples = SOUNDS[sound]
    expected, found = (whole(one.separate(stream(samples))) for one in (package, native))
    assert list(found) == list(expected)
    for name in expected:
        decibels = snr_db(expected[name], found[name])
        print(f"{name}: {decibels:.1f} dB")
        assert found[name].shape == expected[name].shape == samples.shape
        assert np.abs(expected[name]).max() > 1e-5, "a stem that is silent would prove nothing"
        assert decibels >= 95


def test_both_are_silent_in_silence(pair):
    samples = np.zeros((9_000, 2), np.float32)
    for separator in pair:
        stems = whole(separator.separate(stream(samples)))
        assert not any(part.any() for part in stems.values())


def test_stems_of_random_weights_differ(pair):
    """Equal masks for all stems would agree however wrong the networks were."""
    stems = list(whole(pair[0].separate(stream(SOUNDS["one frame"]))).values())
    for number, stem in enumerate(stems):
        for other in stems[:number]:
            assert snr_db(stem, other) < 20
