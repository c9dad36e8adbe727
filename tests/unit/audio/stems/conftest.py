"""A Spleeter model of random weights, written once, of an eighth of Spleeter's width.

All that is tested of blocks, seams, files and processes is the same at any width, and at Spleeter's
own each network takes half a second. `test_masks_are_shares` and the farm's tests have that.
"""

import pytest
import torch

from asha_ray.audio.stems import unet
from tests.unit.audio.stems.bundles import random_model, write_bundle

THINNER = 8


@pytest.fixture(scope="package", autouse=True)
def full_width():
    """Spleeter's own numbers of filters, which networks do not have here unless asked for."""
    with pytest.MonkeyPatch.context() as patch:
        full = unet.NUM_FILTERS
        patch.setattr(unet, "NUM_FILTERS", tuple(num // THINNER for num in full))
        yield full


@pytest.fixture(scope="session")
def two_stems(tmp_path_factory):
    """A folder that holds `2stems/`."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder / "2stems", random_model("2stems", thinner=THINNER))
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
