"""A segment is committed only if it is what was encoded."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from asha_ray.errors import EncodeError
from asha_ray.values import EncoderSettings
from asha_ray.video.encode import encode_segment
from asha_ray.video.verify import verify_segment

SIZE, FRAMES = (64, 48), 90


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Ninety noisy frames, in three groups of pictures."""
    path = tmp_path_factory.mktemp("verify") / "s.mp4"
    noise = np.random.default_rng(1).integers(0, 256, (FRAMES, 64 * 48 * 3 // 2), np.uint8)
    settings = EncoderSettings("libx264", 20, "ultrafast", 1, "x")
    encode_segment([noise], path, SIZE, Fraction(15), settings)
    return path.read_bytes()


@pytest.fixture
def segment(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "s.mp4"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("every_frame", [True, False])
class TestVerify:
    def test_a_good_one(self, segment: Path, every_frame: bool) -> None:
        verify_segment(segment, FRAMES, SIZE, every_frame=every_frame)

    @pytest.mark.parametrize("wrong", [FRAMES - 1, FRAMES + 1])
    def test_another_number_of_frames(self, segment: Path, wrong: int, every_frame: bool) -> None:
        with pytest.raises(EncodeError, match=f"it has 90 frames, not {wrong}"):
            verify_segment(segment, wrong, SIZE, every_frame=every_frame)

    def test_another_size(self, segment: Path, every_frame: bool) -> None:
        with pytest.raises(EncodeError, match="64x48 pixels, not 48x64"):
            verify_segment(segment, FRAMES, (48, 64), every_frame=every_frame)

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    def test_a_torn_one(
        self, content: bytes, segment: Path, keep: float, every_frame: bool
    ) -> None:
        segment.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
        with pytest.raises(EncodeError, match="checking a segment"):
            verify_segment(segment, FRAMES, SIZE, every_frame=every_frame)

    def test_none(self, tmp_path: Path, every_frame: bool) -> None:
        with pytest.raises(EncodeError, match="cannot be decoded"):
            verify_segment(tmp_path / "none.mp4", FRAMES, SIZE, every_frame=every_frame)


def test_frames_of_rubbish_are_found_by_decoding_all(content: bytes, segment: Path) -> None:
    middle = len(content) // 2
    segment.write_bytes(content[:middle] + b"\xff" * 4000 + content[middle + 4000 :])
    with pytest.raises(EncodeError, match="checking a segment"):
        verify_segment(segment, FRAMES, SIZE)
