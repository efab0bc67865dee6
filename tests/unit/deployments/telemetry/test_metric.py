"""How metrics are recorded: their labels, and Ray's instruments."""

import pytest
from ray.util import metrics

from deployments.telemetry.metric import APPLICATION, OTHER, Counter, Gauge, Histogram, Label
from tests.unit.recorded_metrics import recorded_metrics

COLOUR = Label("colour", ("red", "green"))
COUNTER = Counter(name="ryla_test_things_total", description="Things.", labels=(COLOUR,))
GAUGE = Gauge(name="ryla_test_level", description="The level.", labels=(COLOUR,))
HISTOGRAM = Histogram(name="ryla_test_seconds", description="Time.", labels=(COLOUR,), buckets=(1.0, 2.0))


def test_a_value_that_a_label_cannot_have_becomes_other() -> None:
    with recorded_metrics() as recorded:
        COUNTER.add(colour="red")
        COUNTER.add(colour="'; DROP TABLE")
        COUNTER.add(2, colour="blue")
    assert recorded.values(COUNTER, colour="red") == [1]
    assert recorded.values(COUNTER, colour=OTHER) == [1, 2]


@pytest.mark.parametrize("labels", [{}, {"color": "red"}, {"colour": "red", "size": "1"}])
def test_labels_that_are_not_the_metrics_are_refused(labels: dict[str, str]) -> None:
    with recorded_metrics() as recorded:
        for record in (COUNTER.add, GAUGE.set, HISTOGRAM.observe):
            with pytest.raises(TypeError, match="colour"):
                record(1, **labels)
    assert not recorded.names()


def test_a_counter_does_not_bother_ray_with_0() -> None:
    with recorded_metrics() as recorded:
        COUNTER.add(0, colour="red")
    assert not recorded.names()


def test_every_kind_has_an_instrument_of_rays_with_the_application_as_a_label() -> None:
    made = (COUNTER.make(), GAUGE.make(), HISTOGRAM.make())
    assert [type(instrument) for instrument in made] == [metrics.Counter, metrics.Gauge, metrics.Histogram]
    assert [instrument.info["name"] for instrument in made] == ["ryla_test_things", "ryla_test_level", "ryla_test_seconds"]
    assert {instrument.info["tag_keys"] for instrument in made} == {("colour", APPLICATION)}
    assert made[2].info["boundaries"] == [1.0, 2.0]


def test_recording_needs_no_ray() -> None:
    COUNTER.add(colour="red")
    GAUGE.set(1, colour="red")
    HISTOGRAM.observe(1, colour="green")
