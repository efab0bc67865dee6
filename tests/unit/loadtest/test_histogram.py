"""Distributions that workers send to their master."""

import json
import random

import pytest

from loadtest.histogram import GROWTH, Histogram


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.99, 1.0])
def test_a_quantile_is_right_to_the_width_of_a_bucket(share: float) -> None:
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(0, 3) for _ in range(1000))
    exact = values[max(1, -int(-share * 1000 // 1)) - 1]
    assert histogram_of(values).quantile(share) == pytest.approx(exact, rel=GROWTH - 1)


def test_the_quantile_of_a_few_values_is_one_of_them() -> None:
    histogram = histogram_of([1.0, 2.0, 4.0])
    assert [round(histogram.quantile(share), 1) for share in (0.3, 0.34, 0.66, 0.67, 1)] == [1.0, 2.0, 2.0, 4.0, 4.0]


def test_zero_is_a_value() -> None:
    assert histogram_of([0.0, 0.0, 5.0]).quantile(0.5) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_what_is_no_quantity_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="takes no"):
        Histogram().add(value)


def test_no_values_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="of 0 values"):
        Histogram().quantile(0.5)


def test_the_histograms_of_two_workers_are_that_of_all_values() -> None:
    values = [0.001 * n for n in range(500)]
    merged = histogram_of(values[::2])
    merged.merge(Histogram.from_json(json.loads(json.dumps(histogram_of(values[1::2]).to_json()))))
    whole = histogram_of(values)
    assert merged.counts == whole.counts
    assert merged.total == pytest.approx(whole.total)
    assert (merged.least, merged.most) == (whole.least, whole.most)


def test_an_empty_histogram_survives_its_journey() -> None:
    assert Histogram.from_json(json.loads(json.dumps(Histogram().to_json()))) == Histogram()
