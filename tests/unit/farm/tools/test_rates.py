"""Rates: what is kept is read back, the latest counts, and what is no file of rates is said."""

import json
from pathlib import Path

import pytest

from asha_ray.errors import NotFoundError, SpecError
from asha_ray.farm.tools.rates import (
    MachineRate,
    PipelineRate,
    Rates,
    merged,
    rates_path,
    read_rates,
    scaled,
    write_rates,
)


@pytest.fixture(autouse=True)
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def pipeline(rate: float = 50.0, size: tuple[int, int] = (32, 32), kind: str = "cpu"):
    return PipelineRate(
        kind=kind,
        model="abc",
        model_name="seed 32x32",
        size=size,
        cores=2,
        frames_per_s=rate,
        bits_per_pixel=0.2,
        encoder="libx264",
        crf=18,
        time="2024-01-01",
    )


def machine(listen: float, kind: str = "cpu"):
    return MachineRate(
        kind=kind, cores=2, listen=listen, join=9, import_s=1, start_s={"ray": 8}, time="2024"
    )


def test_what_was_written_is_read() -> None:
    rates = Rates(pipelines=(pipeline(),), machines=(machine(90),))
    assert write_rates(rates) == rates_path()
    assert read_rates() == rates
    assert read_rates(str(rates_path())) == rates


def test_nobody_has_measured_yet() -> None:
    assert read_rates() == Rates()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.json"):
        read_rates(str(tmp_path / "gone.json"))


def test_the_latest_of_each_counts() -> None:
    old = Rates(pipelines=(pipeline(1), pipeline(2, (64, 64))), machines=(machine(1),))
    new = Rates(
        pipelines=(pipeline(3), pipeline(4, kind="cuda-sm90")),
        machines=(machine(2), machine(3, "mps")),
    )
    both = merged(old, new)
    assert [rate.frames_per_s for rate in both.pipelines] == [3, 2, 4]
    assert [rate.listen for rate in both.machines] == [2, 3]


def test_another_size_has_as_many_pixels_in_a_second() -> None:
    assert scaled(pipeline(50, (32, 32)), (64, 16)) == 50
    assert scaled(pipeline(50, (32, 32)), (64, 64)) == 12.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 200_000, "recursion"),
        ("no json", "Expecting value"),
        ("[]", "has no attribute"),
        ("{}", "version"),
        ('{"version": 2}', "its version is 2, not 1"),
        ('{"rates": {"version": 2}}', "its version is 2, not 1"),
        ("{}" + " " * (2 << 20), "too large"),
        ('{"version": 1, "machines": [{"kind": "cpu"}]}', r"machines\.0\.cores"),
        ('{"version": 1, "more": 1}', "more"),
    ],
    ids=["deep", "text", "list", "empty", "newer", "newer in a bench", "large", "part", "extra"],
)
def test_a_file_that_is_none_is_an_error_that_says_so(content: str, said: str) -> None:
    rates_path().parent.mkdir(parents=True)
    rates_path().write_text(content)
    with pytest.raises(SpecError, match=rf"(?s)reading rates .*rates\.json: .*{said}") as caught:
        read_rates()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_a_number_one_can_divide_by(value: float) -> None:
    rates_path().parent.mkdir(parents=True)
    data = Rates(pipelines=(pipeline(),)).model_dump(mode="json")
    data["pipelines"][0]["frames_per_s"] = value
    rates_path().write_text(json.dumps(data))
    with pytest.raises(SpecError, match=r"pipelines\.0\.frames_per_s"):
        read_rates()
