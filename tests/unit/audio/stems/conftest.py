"""A Spleeter model of random weights, written once."""

import pytest
import torch

from tests.unit.audio.stems.bundles import random_model, write_bundle


@pytest.fixture(scope="session")
def two_stems(tmp_path_factory):
    """A folder that holds `2stems/`."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder / "2stems", random_model("2stems"))
    return folder


@pytest.fixture(autouse=True)
def no_models_of_ones_own(tmp_path, monkeypatch):
    """What is in the cache of whoever runs the tests must not matter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MODEL_PATH", str(tmp_path / "theirs"))


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Small networks lose more to threads that wait for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
