"""Thresholds and the measures that they judge."""

import json

import pytest

from loadtest.measures import COST, EVERY, FRAME_RATE, RESULT, RETRY_AFTER, SECONDS, Measures
from loadtest.thresholds import Threshold, judge


def measured() -> Measures:
    measures = Measures()
    for value in (1.0, 2.0, 3.0):
        measures.add(SECONDS, "wan2.6", value)
    measures.add(SECONDS, "image-faceswap", 0.1)
    measures.add(FRAME_RATE, "wan2.6", 5.0)
    return measures


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("seconds:wan2.6:p95<=3", True),
        ("seconds:wan2.6:p95<=2.9", False),
        ("seconds:wan2.6:p50 <= 2.1", True),
        ("seconds:*:min<=0.1", True),
        ("seconds:*:count>=4", True),
        ("seconds:*:count>=5", False),
        ("seconds:wan2.6:mean<=2", True),
        ("frame_rate:wan2.6:min>=5", True),
        ("frame_rate:wan2.6:min>=5.1", False),
        ("errors<=0", True),
        ("retry_after:*:count<=0", True),
    ],
)
def test_a_threshold_is_kept_or_missed(text: str, kept: bool) -> None:
    (verdict,) = judge([Threshold.parse(text)], measured())
    assert verdict.kept is kept, str(verdict)


def test_what_was_never_measured_is_missed() -> None:
    (verdict,) = judge([Threshold.parse("cost:wan2.6:max<=1")], measured())
    assert not verdict.kept
    assert str(verdict) == "MISSED: cost:wan2.6:max <= 1: never measured"


def test_one_error_misses_the_threshold_of_none() -> None:
    measures = measured()
    measures.add_error("wan2.6: 500")
    assert not judge([Threshold.parse("errors<=0")], measures)[0].kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p95<5", "must have the form"),
        ("speed:wan2.6:p95<=5", "unknown measure `speed`; there are seconds"),
        ("seconds:wan2.6:p42<=5", "unknown statistic `p42`; there are p50"),
        ("seconds:wan2.6:p95<=1.2.3", "`1.2.3` is not a number"),
    ],
)
def test_a_threshold_that_cannot_be_read_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^`") as caught:
        Threshold.parse(text)
    assert said in str(caught.value)


def test_what_workers_report_adds_up() -> None:
    whole, sent = measured(), measured()
    sent.add_error("gone")
    whole.merge(Measures.from_json(json.loads(json.dumps(sent.take().to_json()))))
    assert whole.of("seconds", EVERY).count == 8
    assert whole.errors == {"gone": 1}
    assert sent == Measures(), "what was taken must not be sent again"


def test_answers_are_results_refusals_and_errors() -> None:
    measures = measured()
    assert measures.answers == 4
    measures.add(RETRY_AFTER, "wan2.6", 1)
    measures.add(RESULT, "wan2.6", 1)
    measures.add_error("gone")
    assert measures.answers == 7


def test_endpoints_are_kept_apart() -> None:
    measures = measured()
    measures.add(RESULT, "wan2.6", 9)
    measures.add(COST, "wan2.6", 0)
    assert measures.of("seconds", "wan2.6").count == 3
    assert measures.of("result", "wan2.6").most == 9
    assert measures.of("seconds", "wan22-i2v").count == 0
