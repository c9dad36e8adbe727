"""The pace of work: which of the known rates counts, what is said about it, and simple sums."""

import pytest

from asha_ray.errors import SpecError
from asha_ray.farm.tools.pace import Pace, pace_of, span_s
from asha_ray.farm.tools.rates import MachineRate, PipelineRate, Rates, architecture_digest
from asha_ray.vae.architecture import architecture_of

ARCHITECTURE = architecture_of("seed", (32, 32), 4, (4,), (8, 4))


def pipeline(rate: float, side: int = 32, kind: str = "cpu-avx2", model: str | None = None):
    return PipelineRate(
        kind=kind,
        model=model or architecture_digest(ARCHITECTURE),
        model_name="seed 32x32",
        size=(side, side),
        cores=2,
        frames_per_s=rate,
        chunk_s=0.25,
        bits_per_pixel=0.2,
        encoder="libx264",
        crf=18,
        time="2024-01-02T03:04:05",
    )


MACHINE = MachineRate(
    kind="cpu-avx2",
    cores=2,
    listen=100,
    join=50,
    import_s=2,
    start_s={"serial": 3, "ray": 8},
    time="2024",
)


def pace(*pipelines: PipelineRate, **changes) -> Pace:
    given = {"kind": "cpu-avx2", "cores": 2, "model": "m", "source": "f.json", **changes}
    rates = Rates(pipelines=pipelines, machines=(MACHINE,))
    return pace_of(rates, ARCHITECTURE, (64, 64), **given)


def test_the_rate_of_this_size_counts_as_it_is() -> None:
    found = pace(pipeline(1, 32), pipeline(2, 64), pipeline(3, 128))
    assert (found.frames_per_s, found.chunk_s, found.machine) == (2, 0.25, MACHINE)
    assert found.notes == ()
    assert found.source == "measured by bench on cpu-avx2, 2024-01-02 (f.json)"


@pytest.mark.parametrize(("sides", "expected"), [((32,), 25.0), ((128,), 400.0), ((32, 96), 225.0)])
def test_the_nearest_size_is_scaled_and_that_is_said(sides, expected) -> None:
    found = pace(*(pipeline(100, side) for side in sides))
    assert found.frames_per_s == expected
    assert "is scaled by pixels; `asha-ray bench --size 64x64`" in found.notes[0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("cpu-avx2", 1), ("cuda-sm90", 3), ("cuda", 2), ("mps", 1), ("cuda-sm80", 2)],
)
def test_the_kind_that_is_asked_for_comes_first(kind: str, expected: float) -> None:
    """A plan for GPUs would reckon with the CPU that it is made on."""
    rates = [pipeline(1, 64), pipeline(2, 64, "cuda-sm89"), pipeline(3, 64, "cuda-sm90")]
    found = pace(*rates, kind=kind)
    assert found.frames_per_s == expected
    assert found.on_gpu == (expected > 1)
    is_other = kind in ("mps", "cuda-sm80")
    assert any("the rate is that of" in note for note in found.notes) == is_other


def test_without_a_rate_it_says_how_to_get_one() -> None:
    with pytest.raises(SpecError, match=r"`asha-ray bench --model m --size 64x64`, or give --rate"):
        pace(pipeline(9, 64, model="another"))


def test_a_given_rate_comes_before_all_and_needs_none() -> None:
    assert pace(pipeline(9, 64), given=7.5).frames_per_s == 7.5
    found = pace(given=7.5, kind="cuda")
    assert (found.frames_per_s, found.on_gpu, found.source) == (7.5, True, "given by --rate")
    assert "start, listening and joining are not counted" in found.notes[0]


def test_six_more_crf_are_half_the_bits() -> None:
    assert pace(pipeline(1, 64), crf=24).bits_per_pixel == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("chunks", "workers", "expected"),
    [
        ([], 3, 0),
        ([10, 10, 10], 1, 33),
        ([10, 10, 10], 3, 11),
        ([10, 10, 10, 5], 2, 22),
        ([10, 10, 10], 100, 11),
    ],
    ids=["nothing", "alone", "side by side", "the last one waits", "more than there is to do"],
)
def test_chunks_go_to_whoever_is_free(chunks, workers, expected) -> None:
    """Ten workers are not ten times as fast at three chunks."""
    assert span_s(chunks, workers, Pace("cpu", 2, 1.0, 1.0, 0.1, "")) == expected
