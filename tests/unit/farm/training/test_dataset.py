"""A folder of images by uri."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asha_ray.errors import ImageError
from asha_ray.farm.training.dataset import (
    NUM_NAMED,
    SHARD_IMAGES,
    ImageShards,
    Skipped,
    list_images,
    read_shards,
    report_skipped,
)
from asha_ray.progress import NullProgress


class Recorder(NullProgress):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.done = 0
        self.notes: list[str] = []

    def advance(self, count: int = 1, detail: str = "") -> None:
        self.done += count

    def note(self, message: str) -> None:
        self.notes.append(message)


def paint(folder: Path, name: str, value: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value, value, value)).save(path)


def read(folder: Path, skipped: list[Skipped] | None = None) -> list[np.ndarray]:
    uris = list_images(str(folder))
    return list(read_shards(uris, (4, 4), "crop", NullProgress(), skipped or []))


class TestListing:
    def test_is_in_file_order_and_knows_pictures_by_name(self, tmp_path: Path) -> None:
        for name in ("b.png", "a 'quoted'.jpg", "ö/ü.PNG", "c.webp"):
            paint(tmp_path, name, 1)
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / ".hidden.png").write_text("x")

        names = [Path(uri).relative_to(tmp_path).as_posix() for uri in list_images(str(tmp_path))]

        assert names == ["a 'quoted'.jpg", "b.png", "c.webp", "ö/ü.PNG"]

    @pytest.mark.parametrize("kind", ["missing", "empty", "only text"])
    def test_a_folder_without_pictures_is_refused(self, tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "images"
        if kind != "missing":
            folder.mkdir()
        if kind == "only text":
            (folder / "a.txt").write_text("x")

        with pytest.raises(ImageError, match="there are no images in it"):
            list_images(str(folder))

    def test_a_file_in_place_of_a_folder_is_refused(self, tmp_path: Path) -> None:
        paint(tmp_path, "a.png", 1)

        with pytest.raises(ImageError, match="it is a file; give the folder that holds them"):
            list_images(str(tmp_path / "a.png"))


class TestReading:
    @pytest.mark.parametrize("count", [1, SHARD_IMAGES, SHARD_IMAGES + 3])
    def test_keeps_the_order_over_shards(self, tmp_path: Path, count: int) -> None:
        for index in range(count):
            paint(tmp_path, f"{index:03d}.png", index)

        shards = read(tmp_path)

        assert [len(shard) for shard in shards[:-1]] == [SHARD_IMAGES] * (len(shards) - 1)
        images = ImageShards(shards)
        assert len(images) == count
        assert images.take(range(count))[:, 0, 0, 0].tolist() == list(range(count))
        assert images.take([count - 1, 0])[:, 0, 0, 0].tolist() == [count - 1, 0]

    def test_unreadable_ones_leave_no_gap(self, tmp_path: Path) -> None:
        for index in range(SHARD_IMAGES + 10):
            paint(tmp_path, f"{index:03d}.png", index)
        for index in (0, 5, 70):
            (tmp_path / f"{index:03d}.png").write_text("no picture")
        skipped: list[Skipped] = []
        progress = Recorder()

        uris = list_images(str(tmp_path))
        images = ImageShards(list(read_shards(uris, (4, 4), "crop", progress, skipped)))

        values = images.take(range(len(images)))[:, 0, 0, 0].tolist()
        assert values == [i for i in range(SHARD_IMAGES + 10) if i not in (0, 5, 70)]
        assert [Path(item.uri).name for item in skipped] == ["000.png", "005.png", "070.png"]
        assert all("no picture of a known format" in item.reason for item in skipped)
        assert progress.done == SHARD_IMAGES + 10

    def test_readers_do_not_disturb_the_warnings_of_the_program(self, tmp_path: Path) -> None:
        """`catch_warnings` in one thread restores what another has set: warnings stay off."""
        for index in range(2 * SHARD_IMAGES):
            paint(tmp_path, f"{index:03d}.png", index)
        with warnings.catch_warnings():
            before = list(warnings.filters)
            for _ in range(4):
                read(tmp_path)
            after = list(warnings.filters)

        assert after == before


class TestReport:
    @staticmethod
    def skipped(count: int) -> list[Skipped]:
        return [Skipped(f"/images/{index}.png", "it is damaged") for index in range(count)]

    def test_says_nothing_where_all_is_well(self) -> None:
        progress = Recorder()

        report_skipped([], 5, progress)

        assert progress.notes == []

    def test_names_each_with_a_count(self) -> None:
        progress = Recorder()

        report_skipped(self.skipped(2), 5, progress)

        [note] = progress.notes
        assert note.startswith("2 of 5 images cannot be read and are skipped")
        assert "/images/0.png: it is damaged" in note
        assert "/images/1.png: it is damaged" in note

    def test_counts_those_it_does_not_name(self) -> None:
        progress = Recorder()

        report_skipped(self.skipped(NUM_NAMED + 7), 100, progress)

        assert "… and 7 more" in progress.notes[0]

    def test_none_left_is_an_error(self) -> None:
        with pytest.raises(ImageError, match="none of 3 can be read") as caught:
            report_skipped(self.skipped(3), 3, Recorder())

        assert caught.value.exit_code == 2
