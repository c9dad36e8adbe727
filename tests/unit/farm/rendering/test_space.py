"""A render that cannot fit is refused before it begins, with the figures."""

from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import pytest

from asha_ray.errors import ResourceError
from asha_ray.farm.rendering import space
from asha_ray.farm.rendering.space import check_space
from asha_ray.values import EncoderSettings, Manifest, Numerics, plan_chunks

Usage = namedtuple("Usage", "total used free")


def manifest_of(seconds: int, size: tuple[int, int] = (3840, 2160), crf: int = 18) -> Manifest:
    return Manifest(
        render_id="r",
        spec={},
        digests={},
        fps=Fraction(60),
        size=size,
        numerics=Numerics("cpu", "float32", True, 4),
        encoder=EncoderSettings("libx264", crf, "veryfast", 2, "9.0"),
        start=0,
        num_frames=60 * seconds,
        duration_s=Fraction(seconds),
        chunks=plan_chunks(0, 60 * seconds, Fraction(60), 10),
    )


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One disk for all, with so many bytes free."""
    free = {"bytes": 0}
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: Usage(0, 0, free["bytes"]))
    monkeypatch.setattr(space, "system_folder", lambda: tmp_path)
    return free


def test_three_hours_of_4k_do_not_fit_on_a_gigabyte(disk, tmp_path):
    disk["bytes"] = 10**9
    manifest = manifest_of(3 * 3600)
    with pytest.raises(ResourceError, match=r"at least 1\d\.\d\d GB .* and 1\.00 GB are free"):
        check_space(
            manifest, manifest.num_frames, str(tmp_path / "new" / "work"), str(tmp_path / "v.mp4")
        )


def test_what_fits_is_let_through(disk, tmp_path):
    disk["bytes"] = 100 * 10**9
    manifest = manifest_of(3 * 3600)
    check_space(manifest, manifest.num_frames, str(tmp_path / "work"), str(tmp_path / "v.mp4"))


@pytest.mark.parametrize(
    ("work", "output", "enough"),
    [
        ("work", "v.mp4", 14),
        ("s3://bucket/work", "v.mp4", 8),
        ("s3://bucket/work", "s3://bucket/v.mp4", 8),
    ],
)
def test_what_goes_to_a_bucket_needs_no_disk_of_ours(disk, tmp_path, work, output, enough):
    """Segments there are deleted here as they are stored; the video is joined here first."""
    manifest = manifest_of(3 * 3600)
    places = [uri if uri.startswith("s3://") else str(tmp_path / uri) for uri in (work, output)]
    disk["bytes"] = enough * 10**9
    check_space(manifest, manifest.num_frames, *places)
    disk["bytes"] = (enough - 2) * 10**9
    with pytest.raises(ResourceError):
        check_space(manifest, manifest.num_frames, *places)


def test_what_is_rendered_already_needs_no_more(disk, tmp_path):
    manifest = manifest_of(3 * 3600)
    disk["bytes"] = 8 * 10**9
    check_space(manifest, 0, str(tmp_path / "work"), str(tmp_path / "v.mp4"))


def test_poorer_pictures_need_less(disk, tmp_path):
    disk["bytes"] = 10**9
    manifest = manifest_of(3600, crf=36)
    check_space(manifest, manifest.num_frames, str(tmp_path / "work"), str(tmp_path / "v.mp4"))
