"""A model small enough for unit tests."""

from pathlib import Path

import numpy as np
import pytest

from asha_ray.vae.architecture import Architecture, Vae, architecture_of, build
from asha_ray.vae.model_dir import write_model

TINY_LATENT = 4
TINY_SIZE = (24, 16)


@pytest.fixture(scope="session")
def tiny_architecture() -> Architecture:
    return architecture_of("seed", TINY_SIZE, TINY_LATENT, (4, 8), (8, 4))


@pytest.fixture(scope="session")
def tiny_vae(tiny_architecture: Architecture) -> Vae:
    return build(tiny_architecture, 7).eval()


@pytest.fixture(scope="session")
def tiny_keyframes() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((6, TINY_LATENT)).astype(np.float32)


@pytest.fixture
def model_folder(tmp_path: Path, tiny_vae: Vae, tiny_keyframes: np.ndarray) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder, tiny_vae, tiny_keyframes, {"epochs": 3, "name": "Wald — лес"})
    return folder
