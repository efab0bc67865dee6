"""The verdict on a service, from what was seen of it, on an idle and on a busy machine."""

from collections.abc import Sequence
from typing import Any

import pytest

from serve.cli.watch import LONGEST_S, MISSING_S, SILENT_S, Watch


class Machine:
    """A watch with a clock and a load that the test sets."""

    def __init__(self, load: float = 1.0) -> None:
        self.now = 1000.0
        self.load = load
        self.watch = Watch(clock=lambda: self.now, load=lambda: self.load)

    def verdict_after(
        self, seconds: float, *, ended: Sequence[str] = (), missing: Sequence[str] = (), silence: str | None = None
    ) -> str | None:
        """Return the verdict on a look ``seconds`` after the one before."""
        self.now += seconds
        return self.watch.verdict(ended=ended, missing=missing, silence=silence)


def test_what_nothing_replaces_may_not_end_even_on_a_busy_machine() -> None:
    machine = Machine(load=40)
    assert machine.verdict_after(1) is None
    assert machine.verdict_after(1, ended=["Ray's raylet"]) == "Ray's raylet ended"
    assert machine.verdict_after(0, ended=["Ray's raylet", "Ray's GCS server"]) == "Ray's raylet and Ray's GCS server ended"


@pytest.mark.parametrize("load", [1.0, 2.0])
def test_what_is_replaced_may_be_away_for_a_while_that_grows_with_the_load(load: float) -> None:
    machine = Machine(load)
    for _ in range(3):  # it comes back each time, so that the time starts again
        assert machine.verdict_after(1, missing=["Serve's proxy"], silence="refused") is None
        assert machine.verdict_after(MISSING_S * load - 1, missing=["Serve's proxy"], silence="refused") is None
        assert machine.verdict_after(1) is None
    machine.verdict_after(1, missing=["Serve's proxy"])
    verdict = machine.verdict_after(MISSING_S * load + 1, missing=["Serve's proxy"])
    assert verdict == f"Serve's proxy ended and was not replaced within {MISSING_S * load + 1:.0f} s"


@pytest.mark.parametrize("load", [1.0, 1.0625])
def test_one_late_answer_or_a_few_are_no_death(load: float) -> None:
    machine = Machine(load)
    for _ in range(5):
        assert machine.verdict_after(5, silence="timed out") is None
        assert machine.verdict_after(SILENT_S * load - 1, silence="timed out") is None
        assert machine.verdict_after(5) is None
    assert machine.verdict_after(5, silence="timed out") is None
    verdict = machine.verdict_after(SILENT_S * load + 1, silence="503 no replica")
    assert verdict == f"/healthz did not answer for {SILENT_S * load + 1:.0f} s (503 no replica)"


def test_two_processes_that_are_away_one_after_the_other_are_counted_apart() -> None:
    machine = Machine()
    assert machine.verdict_after(1, missing=["Serve's proxy"]) is None
    assert machine.verdict_after(MISSING_S - 1, missing=["Serve's controller"]) is None
    assert machine.verdict_after(MISSING_S - 1, missing=["Serve's controller"]) is None


def test_the_limits_end_a_service_within_30_s_of_a_death_and_60_of_a_silence() -> None:
    looks_and_probes_s = 2 + 5 + 2
    assert MISSING_S + looks_and_probes_s <= 30
    assert SILENT_S + looks_and_probes_s <= LONGEST_S + looks_and_probes_s <= 60


@pytest.mark.parametrize("load", [4.0, 1000.0])
@pytest.mark.parametrize("signs", [{"missing": ["Serve's proxy"]}, {"silence": "refused"}])
def test_no_load_lets_a_dead_service_live_for_more_than_a_minute(load: float, signs: dict[str, Any]) -> None:
    machine = Machine(load)
    assert machine.verdict_after(1, **signs) is None
    assert machine.verdict_after(LONGEST_S - 1, **signs) is None
    assert machine.verdict_after(2, **signs) is not None


def test_the_load_of_this_machine_makes_nothing_shorter() -> None:
    machine = Machine()
    assert Watch()._load() >= 1
    assert machine.verdict_after(0) is None
