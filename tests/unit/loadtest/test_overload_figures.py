"""The arithmetic of an overload."""

import pytest

from loadtest.open_loop import Outcome
from loadtest.overload_figures import Bars, Overload, Phase, capacity, dishonest, percentile, phase_of, recovery_s

BARS = Bars(bound_s=10)


def accepted(begun: float, seconds: float) -> Outcome:
    return Outcome(begun=begun, ended=begun + seconds, status=200)


def refused(begun: float, said: float, seconds: float = 0.01) -> Outcome:
    return Outcome(begun=begun, ended=begun + seconds, status=503, retry_after_s=said)


def phase(**changed: object) -> Phase:
    figures: dict[str, object] = {
        "factor": 1,
        "sent": 100,
        "accepted": 90,
        "refused": 10,
        "errors": 0,
        "goodput": 9.0,
        "latency_s": (0.5, 1.0, 2.0),
        "refusal_p95_s": 0.1,
        "said_s": 1.0,
        "dishonest": 0,
        "drain_s": 3.0,
    }
    return Phase(**(figures | changed))  # type: ignore[arg-type]


def run_of(*phases: Phase, recovered_s: float | None = 1.0) -> Overload:
    return Overload(phases=phases or (phase(),), recovered_s=recovered_s)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_nothing_has_the_percentile_0() -> None:
    assert percentile([], 0.95) == 0


def test_capacity_counts_results_only() -> None:
    outcomes = [accepted(0, 1), accepted(1, 1), accepted(2, 2), refused(3, 1)]
    assert capacity(outcomes) == pytest.approx(3 / 4)
    assert capacity([refused(0, 1)]) == 0


def test_goodput_counts_what_came_in_time_and_the_drain_is_what_came_later() -> None:
    outcomes = [accepted(0, 1), accepted(5, 4), accepted(9, 6), refused(9.5, 1)]
    figures = phase_of(outcomes, factor=2, seconds=10)
    assert figures.goodput == pytest.approx(2 / 10)
    assert figures.drain_s == pytest.approx(15 - 9.5)
    assert (figures.sent, figures.accepted, figures.refused, figures.errors) == (4, 3, 1, 0)


def test_an_answer_that_is_wrong_is_an_error_even_with_status_200() -> None:
    wrong = Outcome(begun=0, ended=1, status=200, error="X-Frames is 2")
    assert phase_of([wrong], factor=1, seconds=1).error_texts == ("X-Frames is 2",)


def test_a_retry_after_is_judged_by_when_there_was_room() -> None:
    """Room is where the next accepted request began."""
    honest = [refused(0, 1), refused(5, 5)]
    late = refused(20, 30)
    early = refused(40, 1)
    room = [accepted(0.5, 1), accepted(11, 1), accepted(21, 1), accepted(50, 1)]
    unjudged = refused(60, 1000)
    assert dishonest([*honest, late, early, *room, unjudged]) == [late, early]


def test_one_quick_answer_between_slow_ones_is_no_recovery() -> None:
    outcomes = [accepted(10, 3), accepted(13, 0.1), accepted(14, 4), accepted(18, 0.1), accepted(19, 0.1)]
    assert recovery_s(outcomes, ended=10, usual_s=0.2) == pytest.approx(8)
    assert recovery_s(outcomes[:3], ended=10, usual_s=0.2) is None
    assert recovery_s([accepted(10, 0.1)], ended=10, usual_s=0.2) == 0


def test_a_run_that_keeps_every_bar_misses_none() -> None:
    assert run_of(phase(), phase(factor=10, goodput=8.2)).misses(BARS) == []


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (run_of(phase(), phase(factor=10, goodput=8.0)), "at 10 times capacity the goodput is 8.00/s"),
        (run_of(phase(latency_s=(1, 5, 10.1))), "1 % of the accepted requests take 10.1 s (bar 10.0)"),
        (run_of(phase(refusal_p95_s=1.5)), "5 % of the refusals take 1.50 s"),
        (run_of(phase(errors=2, error_texts=("500 oh",))), "2 requests failed: 500 oh"),
        (run_of(phase(dishonest=1)), "the Retry-After of 1 of 10 refusals was wrong"),
        (run_of(recovered_s=None), "not as quick as before until"),
        (run_of(recovered_s=11), "as quick as before after 11.0 s (bar 10)"),
        (Overload(phases=(phase(),), recovered_s=1, alone_s=(0.1,), beside_s=(0.3,)), "short swaps take 3.0 times"),
    ],
)
def test_each_bar_can_be_missed(run: Overload, said: str) -> None:
    (miss,) = run.misses(BARS)
    assert said in miss


def test_swaps_that_were_not_measured_beside_long_work_are_not_judged() -> None:
    assert run_of().slowdown() is None
    assert Overload(phases=(), recovered_s=0, alone_s=(0.1, 0.3, 0.2), beside_s=(0.4, 0.2)).slowdown() == pytest.approx(1.5)
