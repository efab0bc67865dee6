"""The times, the price and the phases of one request."""

import pytest

from serve.config import Hardware
from serve.pipelines.meter import PHASES, Meter, Stopwatch


def test_the_seconds_and_the_price_of_all_models_are_summed() -> None:
    meter = Meter(
        {"wan26": Hardware(price_usd_per_hour=3600, accelerator_type="L40S"), "face-swapper": Hardware(price_usd_per_hour=36)}
    )
    meter.add_work("wan26", 2)
    meter.add_work("face-swapper", 1)
    meter.add_work("face-swapper", 0.5)
    meter.add_phase("swap", 0.0123)
    assert (meter.execution_s, meter.gpu_type) == (3.5, "L40S")
    assert meter.cost_usd == pytest.approx(2 + 1.5 * 0.01)
    assert meter.server_timing() == "swap;dur=12.3"
    meter.clear()
    assert (meter.execution_s, meter.server_timing()) == (0, "")


def test_phases_are_listed_in_the_order_of_a_request_and_times_of_one_phase_add_up() -> None:
    meter = Meter({})
    for name in reversed(PHASES):
        meter.add_phase(name, 0.001)
    meter.add_phase("swap", 0.002)
    assert [part.split(";")[0] for part in meter.server_timing().split(", ")] == list(PHASES)
    assert "swap;dur=3.0" in meter.server_timing()


def test_a_failed_attempt_leaves_no_acceleration_behind() -> None:
    meter = Meter({}, acceleration="cache; reused=1/2")
    meter.clear()
    assert meter.acceleration == ""


def test_a_stopwatch_measures_its_block_even_if_the_block_fails() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch:
        raise KeyError
    assert 0 < watch.seconds < 1
