"""Deployment files: each read by what reads it in earnest, with no cloud and no cluster."""

from pathlib import Path

import asha_ray

ROOT = Path(asha_ray.__file__).parents[1]
INFRA = ROOT / "infra"
