"""Whether a render will fit on the disks it writes to, before it begins."""

import shutil
from pathlib import Path

from asha_ray.errors import ResourceError
from asha_ray.scratch import system_folder
from asha_ray.storage.base import is_s3
from asha_ray.values import Manifest

BITS_PER_PIXEL = 0.01
"""Of the emptiest picture at crf 18: this refuses what cannot fit, not what may not."""
CRF_PER_HALF = 6
"""By so much more crf, half the bits."""
SOUND_BYTES_PER_S = 20_000
SPARE_BYTES = 64 << 20


def check_space(manifest: Manifest, num_missing_frames: int, work: str, output: str) -> None:
    """Refuse a render that this machine's disks cannot hold.

    Args:
        manifest: of the render.
        num_missing_frames: frames whose segments are not there yet.
        work: the work root; its segments stay.
        output: the video, which is written beside its place first.

    Raises:
        ResourceError: with the figures.
    """
    frame_bytes = _frame_bytes(manifest)
    seconds = float(manifest.num_frames / manifest.fps)
    video_bytes = int(frame_bytes * manifest.num_frames + seconds * SOUND_BYTES_PER_S)
    longest = max(chunk.num_frames for chunk in manifest.chunks)
    needs = [(system_folder(), int(frame_bytes * longest))]
    if not is_s3(work):
        needs.append((Path(work), int(frame_bytes * num_missing_frames)))
    needs.append((system_folder() if is_s3(output) else Path(output).parent, video_bytes))
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, num_bytes in needs:
        place = _existing(folder)
        disk = place.stat().st_dev
        first, sum_bytes = by_disk.get(disk, (place, 0))
        by_disk[disk] = first, sum_bytes + num_bytes
    for place, num_bytes in by_disk.values():
        free = shutil.disk_usage(place).free
        if free < num_bytes + SPARE_BYTES:
            raise ResourceError(
                f"rendering {manifest.num_frames} frames: at least "
                f"{(num_bytes + SPARE_BYTES) / 1e9:.2f} GB are needed on the disk of {place}, and "
                f"{free / 1e9:.2f} GB are free; free some space, or choose another --work or --out"
            )


def _frame_bytes(manifest: Manifest) -> float:
    width, height = manifest.size
    halvings = (manifest.encoder.crf - 18) / CRF_PER_HALF
    return float(width * height * BITS_PER_PIXEL / 8 * 0.5 ** max(0.0, halvings))


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
