"""An archive on a disk whose sound files hold no sound: planning opens none."""

import os
from pathlib import Path

import pytest

from asha_ray.spec import ArchiveSpec, build


class Archive:
    """A source with files in it, and its spec."""

    def __init__(self, root: Path) -> None:
        self.source, self.output, self.model = root / "shows", root / "videos", root / "model"
        self.source.mkdir()
        self.put("../model/config.json", b"{}")

    def put(self, key: str, content: bytes = b"sound", modified_s: int | None = None) -> None:
        path = self.source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if modified_s is not None:
            os.utime(path, (modified_s, modified_s))

    def spec(self, **fields) -> ArchiveSpec:
        places = {"source": self.source, "output": self.output, "model": self.model}
        return build(ArchiveSpec, {**places, **fields})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)
