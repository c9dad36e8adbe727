"""Spleeter in torch: a stream gives what the whole file gives, and silence, edges and errors."""

import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional

from asha_ray.audio.stems import spleeter, unet
from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.separator import SeparatorSettings, make_separator, separate_range
from asha_ray.audio.stems.spleeter import FRAME_LENGTH, HOP_LENGTH, OVERLAP, SpleeterSeparator
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.audio.stems.unet import MaskModel, load_mask_model
from asha_ray.errors import StemsError
from asha_ray.values import PcmStream
from tests.unit.audio.stems.bundles import random_model, write_bundle
from tests.unit.audio.stems.conftest import THINNER
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

REAL_SEGMENT = 512 * HOP_LENGTH
SEGMENT = 64 * HOP_LENGTH
"""The networks take any multiple of 64 frames; short segments show the same seams sooner."""


@pytest.fixture(scope="module", autouse=True)
def short_segments():
    assert spleeter.SEGMENT == REAL_SEGMENT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spleeter, "SEGMENT", SEGMENT)
        yield


@pytest.fixture(scope="module")
def separator(two_stems):
    return SpleeterSeparator("2stems", two_stems, "cpu")


@pytest.fixture(scope="module")
def track():
    """Three segments and a bit, and its stems."""
    return song(3 * SEGMENT / 44_100 + 0.5)


@pytest.fixture(scope="module")
def stems(separator, track):
    return whole(separator.separate(stream(track)))


@torch.no_grad()
def whole_file(separator: SpleeterSeparator, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Spleeter's recipe on a whole track at once, as its paper and package tell it."""
    num_frames = -(-(len(samples) + FRAME_LENGTH) // HOP_LENGTH)
    patch_frames = spleeter.SEGMENT // HOP_LENGTH
    num_patches = -(-num_frames // patch_frames)
    behind = (num_frames - 1) * HOP_LENGTH - len(samples)
    padded = functional.pad(torch.from_numpy(samples.T), (FRAME_LENGTH, behind))
    window = torch.hann_window(FRAME_LENGTH, periodic=True)
    spectrum = torch.fft.rfft(padded.unfold(1, FRAME_LENGTH, HOP_LENGTH) * window)
    patches = functional.pad(spectrum.abs(), (0, 0, 0, num_patches * patch_frames - num_frames))
    patches = patches[..., :1024].reshape(2, num_patches, patch_frames, 1024).transpose(0, 1)
    masks = torch.cat([separator._networks()(patch[None]) for patch in patches], dim=1)
    result = {}
    for stem, patches_of_mask in zip(separator.stems, masks, strict=True):
        mask = patches_of_mask.transpose(0, 1).reshape(2, -1, 1024)[:, :num_frames]
        frames = torch.fft.irfft(functional.pad(mask, (0, 1025))[..., :2049] * spectrum)
        frames = frames * (window * (2 / 3))
        sound = spleeter._overlap_add(frames, torch.zeros(2, OVERLAP))[:, FRAME_LENGTH:][
            :, : len(samples)
        ]
        result[stem] = sound.T.numpy()
    return result


def test_a_stream_gives_the_whole_files_stems(separator, track, stems):
    """Blocks that are not aligned to segments agree to 4 to 8 dB only."""
    expected = whole_file(separator, track)
    for name in expected:
        assert stems[name].shape == track.shape
        assert snr_db(expected[name], stems[name]) >= 170


def test_segments_of_their_real_length(separator, monkeypatch):
    monkeypatch.setattr(spleeter, "SEGMENT", REAL_SEGMENT)
    samples = song(13)
    expected, found = whole_file(separator, samples), whole(separator.separate(stream(samples)))
    for name in expected:
        assert snr_db(expected[name], found[name]) >= 170


@pytest.mark.parametrize("block", [1 << 20, SEGMENT])
def test_the_size_of_blocks_changes_nothing(separator, track, stems, block):
    found = whole(separator.separate(stream(track, block=block)))
    for name in stems:
        np.testing.assert_array_equal(stems[name], found[name])


def test_blocks_of_one_sample_change_nothing(separator):
    samples = song(1)[:9_000]
    expected = whole(separator.separate(stream(samples)))
    found = whole(separator.separate(stream(samples, block=1)))
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name])


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1000),
        (SEGMENT - FRAME_LENGTH - 1, SEGMENT - FRAME_LENGTH + 1),
        (2 * SEGMENT + 5, 2 * SEGMENT + 60_000),
        (3 * SEGMENT, 3 * SEGMENT + 99_999_999),
    ],
)
def test_a_range_is_the_whole_tracks(separator, track, stems, start, stop):
    """Ranges are tasks of their own on a farm; they must fit together without a seam."""
    ranged = whole(separate_range(separator, lambda at: stream(track[at:]), 44_100, start, stop))
    for name, part in ranged.items():
        np.testing.assert_array_equal(stems[name][start:stop], part)


def test_a_range_needs_one_segment_before_it_and_no_more(separator):
    start = 5 * SEGMENT
    assert start - 2 * SEGMENT - FRAME_LENGTH <= separator.block_start(start, 44_100) < start
    at_48k = separator.block_start(start, 48_000)
    assert start - 3 * SEGMENT < at_48k < start
    assert at_48k * 44_100 % 48_000 == 0


def test_a_range_at_another_rate_fits_too(separator):
    samples = song(4.4, 48_000)
    expected = whole(separator.separate(stream(samples, 48_000)))
    start, stop = 160_001, 200_000
    ranged = whole(
        separate_range(separator, lambda at: stream(samples[at:], 48_000), 48_000, start, stop)
    )
    assert separator.block_start(start, 48_000) > 0
    for name, part in ranged.items():
        assert snr_db(expected[name][start:stop], part) > 110


def test_a_part_too_short_for_a_segment_keeps_its_length(separator):
    first = separator.block_start(4 * SEGMENT, 44_100) + HOP_LENGTH
    part = whole(separator.separate(stream(song(1)[:5000]), first))
    assert part["vocals"].shape == (5000, 2)


EDGES = [1, FRAME_LENGTH, SEGMENT - FRAME_LENGTH, SEGMENT - FRAME_LENGTH + 1, SEGMENT + 1]


@pytest.mark.parametrize("length", EDGES)
def test_edge_lengths(separator, length):
    samples = song(2)[:length]
    found, expected = whole(separator.separate(stream(samples))), whole_file(separator, samples)
    for name in expected:
        assert found[name].shape == samples.shape
        assert snr_db(expected[name], found[name]) >= 170


def test_silence_gives_silence_and_nothing_gives_nothing(separator):
    found = whole(separator.separate(stream(np.zeros((30_000, 2), np.float32))))
    assert not any(samples.any() for samples in found.values())
    assert list(separator.separate(PcmStream(44_100, 2, iter([])))) == []


@pytest.mark.parametrize(("sample_rate", "num_channels"), [(8_000, 1), (48_000, 2), (96_000, 6)])
def test_any_rate_and_channels(separator, sample_rate, num_channels):
    samples = np.tile(song(1, sample_rate)[:, :1], num_channels)
    found = whole(separator.separate(stream(samples, sample_rate)))
    assert {part.shape for part in found.values()} == {(sample_rate, 2)}


def test_all_stems_are_the_mix_below_11_khz(separator):
    """Masks sum to 1 up to the 1024th bin, and are 0 above."""
    time_s = np.arange(44_100)[:, None] / 44_100
    low = np.tile(0.3 * np.sin(2 * np.pi * 5_000 * time_s), 2).astype(np.float32)
    high = np.tile(0.3 * np.sin(2 * np.pi * 16_000 * time_s), 2).astype(np.float32)
    total = sum(whole(separator.separate(stream(low + high))).values())
    middle = slice(8_000, -8_000)
    assert snr_db(low[middle], total[middle]) > 60


def test_memory_does_not_grow_with_length(separator):
    """The package takes 22 MB for every second: a show of three hours would be 237 GB."""

    block = song(1)

    def peak(num_blocks: int) -> int:
        tracemalloc.start()
        for _ in separator.separate(PcmStream(44_100, 2, (block for _ in range(num_blocks)))):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    assert peak(6) < 1.1 * peak(3)


def test_the_version_tells_models_apart(separator, two_stems, tmp_path):
    write_bundle(tmp_path / "2stems", random_model("2stems", 1, THINNER))
    other = SpleeterSeparator("2stems", tmp_path, "cpu")
    again = make_separator("spleeter", SeparatorSettings("2stems", two_stems / "2stems", "cpu"))
    assert other.version != separator.version == again.version
    assert (again.name, again.sample_rate, again.stems) == (
        "spleeter",
        44_100,
        ("vocals", "accompaniment"),
    )


@pytest.mark.parametrize("name", KINDS)
def test_masks_are_shares(name, full_width, monkeypatch):
    if name == "2stems":  # the others have more of the same networks
        monkeypatch.setattr(unet, "NUM_FILTERS", full_width)
    torch.manual_seed(0)
    model = MaskModel(KINDS[name]).eval()
    with torch.no_grad():
        masks = model(torch.rand(1, 2, 64, 64) + 0.1)
    assert masks.shape == (len(KINDS[name].stems), 1, 2, 64, 64)
    torch.testing.assert_close(masks.sum(dim=0), torch.ones(1, 2, 64, 64))


def test_files_of_another_model_are_refused(two_stems, tmp_path):
    """4 stems read as 2 would give vocals and drums under wrong names, without an error."""
    with pytest.raises(StemsError, match=r"no variable conv2d_14/kernel.*--fetch 4stems"):
        whole(SpleeterSeparator("4stems", two_stems / "2stems", "cpu").separate(stream(song(1))))
    variables = random_model("2stems", thinner=THINNER)
    write_bundle(tmp_path / "more", variables | {"conv2d_14/kernel": np.zeros(1, np.float32)})
    with pytest.raises(StemsError, match="more stems"):
        load_mask_model(Checkpoint(tmp_path / "more"), "2stems")
    variables["conv2d_3/kernel"] = variables["conv2d_3/kernel"][:3]
    write_bundle(tmp_path / "other", variables)
    with pytest.raises(StemsError, match="they are of another model"):
        load_mask_model(Checkpoint(tmp_path / "other"), "2stems")


def test_a_damaged_model_names_the_remedy(two_stems, tmp_path):
    shutil.copytree(two_stems / "2stems", tmp_path / "m")
    with (tmp_path / "m" / "model.data-00000-of-00001").open("r+b") as file:
        file.seek(600_000)
        file.write(b"damage")
    with pytest.raises(StemsError, match=r"checksum of .* is wrong.*asha-ray stems --fetch 2stems"):
        whole(SpleeterSeparator("2stems", tmp_path / "m", "cpu").separate(stream(song(1))))


def test_who_separates_nothing_loads_no_networks(two_stems, monkeypatch):
    """A farm's driver asks for the version and for cuts; 160 MB of weights are its workers'."""

    def fail(*_: object) -> None:
        pytest.fail("the networks were loaded")

    monkeypatch.setattr(spleeter, "load_mask_model", fail)
    separator = SpleeterSeparator("2stems", two_stems, "cpu")
    assert separator.version.startswith("spleeter-1-2stems-")
    assert separator.cut_near(1_000_000, 44_100) >= 1_000_000
