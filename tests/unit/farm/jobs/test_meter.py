"""What a job costs: worker time times price, over all attempts."""

import pytest

from asha_ray.farm.jobs.meter import Meter
from asha_ray.spec import Prices

PRICES = Prices(gpu_hour=2.0, cpu_hour=0.5)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_counts_from_when_a_worker_is_there_to_when_it_is_not(clock: Clock) -> None:
    meter = Meter(PRICES, clock=clock)
    clock.now += 1000  # listening: no worker yet
    meter.hear({"worker": {"GPU": 0.25, "CPU": 4}, "workers": 0})
    meter.hear({"workers": 8})
    clock.now += 3600
    meter.hear({"workers": 4})
    clock.now += 3600
    meter.count()
    assert meter.gpu_s == pytest.approx((8 + 4) * 0.25 * 3600)
    assert meter.cpu_s == 0, "a GPU's price is that of all its machine has beside it"
    assert meter.cost == pytest.approx(3 * 2.0)


def test_a_worker_without_a_gpu_costs_its_cpus(clock: Clock) -> None:
    meter = Meter(PRICES, clock=clock)
    meter.hear({"worker": {"CPU": 2.0}, "workers": 3})
    clock.now += 1800
    meter.count()
    assert meter.cost == pytest.approx(3 * 2 * 0.5 * 0.5)


def test_an_earlier_attempt_counts(clock: Clock) -> None:
    meter = Meter(PRICES, {"gpu_s": 3600, "cpu_s": 7200}, clock)
    assert meter.cost == pytest.approx(2.0 + 1.0)


@pytest.mark.parametrize(
    "before", [None, {}, {"gpu_s": "much"}, {"gpu_s": -5}, {"gpu_s": None}, {"gpu_s": 10**400}]
)
def test_a_damaged_heartbeat_costs_nothing(clock: Clock, before: dict | None) -> None:
    assert Meter(PRICES, before, clock).cost == 0


def test_without_prices_there_is_no_cost_but_time(clock: Clock) -> None:
    meter = Meter(None, clock=clock)
    meter.hear({"worker": {"GPU": 1}, "workers": 1})
    clock.now += 60
    meter.count()
    assert meter.cost is None
    assert meter.gpu_s == 60


def test_other_facts_change_nothing(clock: Clock) -> None:
    meter = Meter(PRICES, clock=clock)
    meter.hear({"frames_done": 10})
    clock.now += 60
    meter.count()
    assert meter.cost == 0
