"""Encoders: what users' words become, and the truth about which work here."""

import subprocess

import pytest

from asha_ray import ffmpeg
from asha_ray.video import codecs
from asha_ray.video.codecs import CODECS, NVENC, PRESETS, arguments, failure
from tests.unit.video.conftest import settings


def value_of(option: str, **changes) -> str:
    given = arguments(settings(**changes))
    return given[given.index(option) + 1]


@pytest.fixture(autouse=True)
def forget():
    failure.cache_clear()
    yield
    failure.cache_clear()


@pytest.mark.parametrize("codec", CODECS)
def test_every_preset_has_a_name_in_every_encoder(codec):
    names = {preset: value_of("-preset", codec=codec, preset=preset) for preset in PRESETS}
    same = [preset for preset, name in names.items() if name == preset]
    assert same == (list(PRESETS) if codec in ("libx264", "libx265") else []), names


@pytest.mark.parametrize("codec", ["libsvtav1", *NVENC])
def test_slower_presets_stay_slower(codec):
    order = [value_of("-preset", codec=codec, preset=preset) for preset in PRESETS]
    numbers = [int(name.removeprefix("p")) for name in order]
    assert numbers == sorted(numbers, reverse=codec == "libsvtav1")


@pytest.mark.parametrize(
    ("codec", "option"), [(codec, "-cq" if codec in NVENC else "-crf") for codec in CODECS]
)
def test_quality_is_each_encoders_own_and_within_its_range(codec, option):
    found = [int(value_of(option, codec=codec, crf=crf)) for crf in (0, 18, 30, 51)]
    assert found == sorted(set(found))
    assert found[-1] == (63 if "av1" in codec else 51)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_encoders_on_the_cpu_work_here(codec):
    assert failure(codec) == ""


def test_one_that_ffmpeg_lacks_is_told(monkeypatch):
    monkeypatch.setattr(ffmpeg, "encoders", frozenset)
    assert failure("av1_nvenc") == "this ffmpeg has no av1_nvenc"


def test_one_that_the_machine_cannot_run_is_told_with_the_reason(monkeypatch):
    """ffmpeg lists NVENC on every machine; only an encode tells."""
    monkeypatch.setattr(ffmpeg, "encoders", lambda: frozenset({"h264_nvenc"}))
    said = b"[h264_nvenc @ 0x55d0] No capable devices found\nmore\n"
    monkeypatch.setattr(
        codecs.subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 1, b"", said),
    )
    assert failure("h264_nvenc") == "h264_nvenc does not run here (No capable devices found)"
