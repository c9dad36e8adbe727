"""`bench`: it measures what a render does, says what it compared, and keeps what it found."""

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import asha_ray
from asha_ray.cli.report import bench_text
from asha_ray.errors import SpecError
from asha_ray.farm.rendering.numerics import Row, read_table
from asha_ray.farm.tools import bench as module
from asha_ray.farm.tools.bench import (
    BenchResult,
    _changed,
    _default,
    _Steady,
    _steady,
    _summary,
    bench,
)
from asha_ray.farm.tools.bench_stages import (
    STAGES,
    PeakMemory,
    Reading,
    Stages,
    sample_model,
    sample_path,
)
from asha_ray.farm.tools.rates import (
    MachineRate,
    Rates,
    architecture_digest,
    rates_path,
    read_rates,
)
from asha_ray.progress import NullProgress
from asha_ray.vae.architecture import architecture_of
from asha_ray.vae.model_dir import ModelFiles
from asha_ray.vae.numerics import device_kind

TINY = architecture_of("seed", (32, 32), 4, (4,), (8, 4))


def make_small(patch: pytest.MonkeyPatch, config: Path) -> None:
    """Measure little, and keep what was found in a place of its own."""
    patch.setenv("XDG_CONFIG_HOME", str(config))
    patch.setattr(module, "sample_model", lambda: sample_model(TINY))
    patch.setattr(module, "QUICK_ROUNDS", 1)
    patch.setattr(module, "QUICK_SECONDS", 0.0)
    patch.setattr(module, "pick_device", lambda: "cpu")
    patch.setattr(module, "TUNE_BATCHES", {"cpu": (1, 2)})
    patch.setattr(module, "measure_machine", lambda kind, *_, **__: machine(kind))


@pytest.fixture(autouse=True)
def small_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, tmp_path / "config")


@dataclass(frozen=True)
class Measurements:
    """Two, one after the other, and what was kept after each."""

    first: BenchResult
    first_table: dict[str, Row]
    second: BenchResult
    table: dict[str, Row]
    rates: Rates


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measurements]:
    """One that compares, then one of another size that tunes: each takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, tmp_path_factory.mktemp("config"))
        vs = ("batch=2,decoders=1",)
        first = asha_ray.bench(sizes=("32x32", "64x36"), vs=vs, quick=True)
        first_table = read_table()
        second = asha_ray.bench(sizes=("16x16",), tune=True, quick=True)
        yield Measurements(first, first_table, second, read_table(), read_rates())


def machine(kind: str) -> MachineRate:
    """In place of what starts Ray."""
    start_s = {"serial": 3.0, "ray": 8.0}
    return MachineRate(
        kind=kind, cores=2, listen=100, join=90, import_s=2, start_s=start_s, time="2024-01-01"
    )


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return sample_model(TINY)


@pytest.fixture(scope="module")
def default(files: ModelFiles) -> object:
    return _default(device_kind("cpu"), files, (32, 32))


def test_every_size_and_setting_has_its_line(measured: Measurements) -> None:
    result = measured.first

    assert isinstance(result, BenchResult)
    assert [(row.size, row.setting) for row in result.rows] == [
        (size, setting)
        for size in ("32x32", "64x36")
        for setting in ("default", "batch=2,decoders=1")
    ]
    for row in result.rows:
        assert min(row.decode, row.convert, row.encode, row.pipeline, row.bound) > 0
        assert row.bound < min(row.decode, row.encode), "on a CPU both share the cores"
        assert set(row.spread) == set(STAGES)
    assert result.peak_bytes > 50e6
    assert (result.tuned, measured.first_table) == (None, {})
    assert json.loads(json.dumps(result.document()))["kind"] == device_kind("cpu")


def test_people_see_all_of_it(measured: Measurements) -> None:
    text = bench_text(measured.first)

    assert {"decode", "convert", "encode", "pipeline", "bound"} <= set(text.split())
    assert "batch=2,decoders=1" in text
    assert device_kind("cpu") in text


def test_what_a_plan_needs_is_kept_and_told(measured: Measurements, tmp_path: Path) -> None:
    """`plan` right after `bench` would find nothing to reckon with."""
    assert [(rate.size, rate.model) for rate in measured.rates.pipelines] == [
        (size, architecture_digest(TINY)) for size in ((32, 32), (64, 36), (16, 16))
    ]
    assert measured.rates.machine(device_kind("cpu")) == machine(device_kind("cpu"))
    result = measured.second
    assert result.rates_file in bench_text(result)
    printed = tmp_path / "printed.json"
    printed.write_text(json.dumps(result.document()))
    assert read_rates(str(printed)) == result.rates
    (rate,) = result.rates.pipelines
    assert (rate.kind, rate.crf, rate.model_name) == (device_kind("cpu"), 18, "seed 32x32")
    assert 0 < rate.bits_per_pixel < 100


def test_rates_that_cannot_be_added_to_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes minutes, and all of it would be lost."""
    rates_path().parent.mkdir(parents=True)
    rates_path().write_text('{"version": 2}')
    monkeypatch.setattr(module, "_measure", None)
    with pytest.raises(SpecError, match=r"rates\.json: its version is 2, not 1; measure anew"):
        bench(sizes=("32x32",), quick=True)


def test_rates_that_cannot_be_written_are_told_all_the_same(
    measured: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    class Notes(NullProgress):
        def note(self, message: str) -> None:
            notes.append(message)

    def full(rates: Rates) -> Path:
        raise OSError(errno.ENOSPC, "no space left")

    rows, steady = list(measured.second.rows), _Steady(100.0, 0.2, 1.0)
    monkeypatch.setattr(module, "_measure", lambda *_: (rows, steady))
    monkeypatch.setattr(module, "write_rates", full)
    result = bench(sizes=("32x32",), quick=True, progress=Notes())
    assert (result.rates_file, len(result.rates.pipelines)) == ("", 1)
    assert "no space left; keep what --json prints" in notes[-1]
    assert "asha-ray plan" not in bench_text(result)


@pytest.mark.parametrize(
    ("little_s", "rate", "begin_s"),
    [(0.3, 100.0, 0.2), (0.05, 1010 / 10.3, 0.0), (10.4, 1010 / 10.3, 0.0)],
    ids=["told apart", "quicker than any frame", "as slow as a long one"],
)
def test_a_chunks_beginning_is_told_from_its_frames(little_s, rate, begin_s) -> None:
    """Frames would seem slower than they are, and short chunks as good as long ones."""
    long = Reading(1010 / 10.3, 1.0, 1010, 12_625)
    little = Reading(10 / little_s, 1.0, 10, 100)

    found = _steady((10, 10), [long], [little])

    assert found.rate == pytest.approx(rate)
    assert found.begin_s == pytest.approx(begin_s)
    assert found.bits_per_pixel == pytest.approx(1.0)


def test_tuning_writes_the_table_that_renders_read(measured: Measurements) -> None:
    result = measured.second

    assert result.tuned is not None
    assert measured.table == {device_kind("cpu"): result.tuned}
    assert result.table in bench_text(result)
    assert result.tuned.batch_size in (1, 2)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("fp32", "numerics.dtype", "float32"),
        ("bf16", "numerics.dtype", "bfloat16"),
        ("batch=8", "numerics.batch_size", 8),
        ("threads=2", "numerics.threads", 2),
        ("decoders=5", "num_decoders", 5),
        ("encoder-threads=3", "encoder.threads", 3),
        ("codec=libx265", "encoder.codec", "libx265"),
        ("fp32, preset=slow", "encoder.preset", "slow"),
    ],
)
def test_what_can_be_compared(default, text: str, path: str, value: object) -> None:
    found = _changed(default, text)

    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    "text", ["", "fp8", "batch", "batch=0", "batch=x", "batch=-1", "codec=gif", "fp32=1", "preset="]
)
def test_what_cannot_is_refused_with_what_could(default, text: str) -> None:
    with pytest.raises(SpecError, match=r"cannot be compared; there are fp32, .*codec="):
        _changed(default, text)


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="'big' is no size"):
        bench(sizes=("big",), quick=True)


def test_medians_are_of_each_rounds_own_ratio() -> None:
    """A machine that is slow in one round is slow in all of that round's stages."""
    fast = {"decode": 100.0, "convert": 900.0, "encode": 400.0, "pipeline": 76.0}
    slow = {stage: rate / 10 for stage, rate in fast.items()}

    def readings(rates):
        return {stage: Reading(rate, 1000 / rate) for stage, rate in rates.items()}

    row = _summary("s", "l", [readings(fast), readings(slow), readings(fast)], shared=True)

    assert row.bound == pytest.approx(80)
    assert row.fraction == pytest.approx(0.95)
    assert row.spread["decode"] == pytest.approx(0.9)
    assert row.cost_fraction == pytest.approx(0.95)
    assert _summary("s", "l", [readings(fast)], shared=False).bound == 100


def test_stages_work_again_and_again(files: ModelFiles, default) -> None:
    stages = Stages(files, default)
    try:
        for stage in (*STAGES, *STAGES):
            reading = stages.measure(stage, 0.0)
            assert min(reading[:3]) > 0
            assert (reading.num_bytes > 0) == (stage in ("encode", "pipeline"))
    finally:
        stages.close()


def test_a_model_without_keyframes_can_be_measured() -> None:
    import numpy as np

    path = sample_path(np.zeros((0, 4), np.float32), 4)
    assert path.latents(0, 10).shape == (10, 4)


def test_memory_of_all_processes_is_watched() -> None:
    import subprocess
    import sys

    with PeakMemory() as memory:
        code = "import time; kept = bytearray(200 << 20); print(1, flush=True); time.sleep(60)"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        try:
            child.stdout.readline()
            before = memory.peak_bytes
            while memory.peak_bytes < 200 << 20 and memory.peak_bytes <= before:
                pass
        finally:
            child.kill()
            child.communicate()
    assert memory.peak_bytes > 200 << 20
