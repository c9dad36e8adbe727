"""A training's checkpoint: what is damaged in it is known, and costs no memory."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from torch.optim import Adam

from asha_ray.farm.training.train_worker import NUMBERS, STATE, STRIP, UNREADABLE, _restore
from asha_ray.vae.architecture import Vae, architecture_of, build

LYING = "{'descr': '%s', 'fortran_order': False, 'shape': (1000000000000,), }"


@pytest.fixture
def vae() -> Vae:
    return build(architecture_of("seed", (24, 16), 4, (4,), (4,)))


@pytest.fixture
def checkpoint(tmp_path: Path, vae: Vae) -> Path:
    state = {f"model.{name}": value.contiguous() for name, value in vae.state_dict().items()}
    save_file(state, tmp_path / STATE)
    (tmp_path / NUMBERS).write_text(json.dumps({"epoch": 3, "metrics": [], "strip_epochs": [3]}))
    np.save(tmp_path / STRIP, np.zeros((1, 6, 8, 8, 3), np.uint8))
    return tmp_path


def _npy(header: str) -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_a_good_one_is_read(checkpoint: Path, vae: Vae) -> None:
    state = _restore(checkpoint, vae, Adam(vae.parameters()))

    assert (state.epoch, len(state.strip)) == (3, 1)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / STRIP).write_bytes(_npy(LYING % "|u1")),
        lambda folder: (folder / STRIP).write_bytes(_npy(LYING % "|V0")),
        lambda folder: (folder / STRIP).unlink(),
        lambda folder: (folder / NUMBERS).write_text("[" * 200_000),
        lambda folder: (folder / NUMBERS).write_text("{}"),
        lambda folder: (folder / NUMBERS).write_text("[]"),
        lambda folder: (folder / STATE).write_bytes(b"\xff" * 64),
        lambda folder: save_file({}, folder / STATE),
    ],
    ids=["lying", "no bytes", "gone", "deep", "empty", "list", "no tensors", "other tensors"],
)
def test_a_damaged_one_raises_what_is_explained(
    checkpoint: Path, vae: Vae, harm: Callable[[Path], object]
) -> None:
    """Anything else would be a worker's traceback, three times."""
    harm(checkpoint)

    with pytest.raises(UNREADABLE):
        _restore(checkpoint, vae, Adam(vae.parameters()))
