"""Spans: when they are recorded, how they nest, and what reaches a collector."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from deployments.telemetry import tracing
from deployments.telemetry.origin import Origin, current_origin, working_for
from deployments.telemetry.tracing import NO_SPAN, begin, exporters, span
from tests.unit.otlp_receiver import Receiver, attributes, receiver

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID, SPAN_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c"), bytes.fromhex("b7ad6b7169203331")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver(monkeypatch) as receiving:
        yield receiving


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, ()),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, ()),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
    ],
)
def test_the_usual_variables_switch_traces_on(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert exporters(environment) == expected


def test_without_them_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys\n"
        "from deployments.telemetry import tracing\n"
        "with tracing.span('a', {'b': 1}) as span:\n"
        "    span.set({'c': 2})\n"
        "assert span is tracing.NO_SPAN\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "."})


def test_a_span_that_is_off_leaves_the_origin_alone() -> None:
    origin = Origin("request", "job")
    with working_for(origin), span("a") as begun:
        assert begun is NO_SPAN
        assert current_origin() is origin


def test_spans_nest_below_the_callers_and_reach_the_collector(collector: Receiver) -> None:
    with working_for(Origin("request", "job")), span("outer", {"ryla.a": 1}, kind="server", parent=CALLER) as outer:
        assert current_origin() == Origin("request", "job", outer.trace)
        inner = begin("inner")
        inner.set({"ryla.b": "c"})
        inner.end()
        inner.end()
    tracing.flush()
    first, second = collector.one("outer"), collector.one("inner")
    assert (first.trace_id, first.parent_span_id) == (TRACE_ID, SPAN_ID)
    assert (second.trace_id, second.parent_span_id) == (TRACE_ID, first.span_id)
    assert attributes(first) == {"ryla.a": 1}
    assert attributes(second) == {"ryla.b": "c"}
    assert collector.resources[0]["service.name"] == "ryla-serve"


def test_spans_say_which_replica_they_are_from(collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = SimpleNamespace(replica_tag="3xk1", deployment="Runner")
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: replica)
    with span("work"):
        pass
    tracing.flush()
    (resource,) = collector.resources
    assert (resource["ryla.deployment"], resource["ryla.replica"]) == ("Runner", "3xk1")
    assert resource["service.name"] == "ryla-serve"


def test_outside_of_a_replica_they_name_none(collector: Receiver) -> None:
    with span("work"):
        pass
    tracing.flush()
    assert not {"ryla.deployment", "ryla.replica"} & set(collector.resources[0])


@pytest.mark.parametrize("sent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\r\n", "00-é"])
def test_a_malformed_parent_is_none(collector: Receiver, sent: str) -> None:
    with span("alone", parent=sent):
        pass
    tracing.flush()
    assert collector.one("alone").parent_span_id == b""


def test_a_span_links_to_another_trace_that_is_one(collector: Receiver) -> None:
    with span("linked") as linked:
        for trace in (CALLER, "", "nonsense"):
            linked.link(trace)
    tracing.flush()
    (link,) = collector.one("linked").links
    assert (link.trace_id, link.span_id) == (TRACE_ID, SPAN_ID)


def test_a_span_that_is_not_sampled_has_children_that_are_not_either(collector: Receiver) -> None:
    with span("outer", parent=CALLER[:-1] + "0") as outer:
        assert outer.trace.endswith("-00")
        with span("inner"):
            pass
    tracing.flush()
    assert collector.spans == []


def test_a_block_that_raises_marks_its_span_by_the_type_alone(collector: Receiver) -> None:
    with pytest.raises(ValueError, match="a prompt"), span("broken"):
        raise ValueError("a prompt")
    tracing.flush()
    broken = collector.one("broken")
    assert (broken.status.code, broken.status.message) == (2, "ValueError")
    assert b"a prompt" not in broken.SerializeToString()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is `zipkin`; use otlp, console, none"),
        ({"OTEL_TRACES_EXPORTER": "console,zipkin"}, "OTEL_TRACES_EXPORTER is `zipkin`"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, "max_export_batch_size must be less than or equal to max_queue_size"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "schedule_delay_millis must be positive"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be a positive integer"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer"),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-5"}, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT must be a non-negative integer"),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "1e3"}, "OTEL_SPAN_LINK_COUNT_LIMIT must be a non-negative integer"),
        ({"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "nowhere"}, None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "no,pairs=,=%"}, None),
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, None),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"}, None),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, None),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "never"}, None),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, None),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, None),
    ],
)
def test_a_wrong_variable_fails_no_request_and_is_said_once(
    collector: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    reason: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing.read_environment()
    with caplog.at_level(logging.ERROR, "ray.serve"):
        for _ in range(2):
            with span("work", {"ryla.a": 1}, parent=CALLER) as work, span("inner"):
                begin("begun").end()
    tracing.flush()
    said = [record.getMessage() for record in caplog.records if record.name == "ray.serve"]
    if reason is None:  # the SDK goes on without the value
        assert said == []
        assert work is not NO_SPAN
        assert len(collector.named("work")) == 2
    else:
        assert work is NO_SPAN
        (line,) = said
        assert line.startswith("no traces are recorded: ")
        assert reason in line
