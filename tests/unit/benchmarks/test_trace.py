"""The picture of a trace has every span, each below the one that it is a part of."""

import xml.etree.ElementTree as ET
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.trace import Bar, bars, draw

SECOND = 1_000_000_000
SVG = "{http://www.w3.org/2000/svg}"


def span(name: str, number: int, parent: int, start: float, end: float, *, call: bool = False) -> Span:
    return Span(
        name=name,
        span_id=bytes([number]),
        parent_span_id=bytes([parent]) if parent else b"",
        start_time_unix_nano=round((100 + start) * SECOND),
        end_time_unix_nano=round((100 + end) * SECOND),
        kind=Span.SPAN_KIND_CLIENT if call else Span.SPAN_KIND_INTERNAL,
    )


RECEIVED: list[tuple[Any, dict[str, str]]] = [
    (span("denoise", 4, 3, 1, 3), {"ryla.deployment": "Wan26"}),
    (span("webhook", 5, 1, 4.5, 5), {"ryla.deployment": "Runner"}),
    (span("POST /wan2.6 <a>", 1, 9, 0, 4), {"ryla.deployment": "Ingress"}),
    (span("wan26 generate", 3, 2, 0.5, 3.5, call=True), {"ryla.deployment": "Runner"}),
    (span("job", 2, 1, 0.25, 4), {}),
]


def test_spans_stand_in_the_order_of_their_tree() -> None:
    found = bars(RECEIVED)
    assert [(bar.name, bar.depth) for bar in found] == [
        ("POST /wan2.6 <a>", 0),
        ("job", 1),
        ("wan26 generate", 2),
        ("denoise", 3),
        ("webhook", 1),
    ]
    denoise = found[3]
    assert denoise == Bar(name="denoise", deployment="Wan26", depth=3, start=1.0, seconds=2.0, is_call=False)
    assert found[2].is_call


def test_the_picture_is_as_wide_as_the_time_takes() -> None:
    picture = ET.fromstring(draw(bars(RECEIVED)))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"POST /wan2.6 <a>", "job", "denoise", "webhook", "2.00 s", "500 ms"} <= set(texts)
    drawn = [each for each in picture.iter(f"{SVG}rect") if each.get("height") == "12"][4:]
    left, width = [float(bar.get("x", 0)) for bar in drawn], [float(bar.get("width", 0)) for bar in drawn]
    assert len(drawn) == len(RECEIVED)
    # The whole trace takes 5 s: the first span 4 of them, `denoise` 2 from the first second on.
    assert width[3] == round(width[0] / 2, 1)
    assert round(left[3] - left[0], 1) == round(width[0] / 4, 1)
    assert left[4] + width[4] <= float(picture.get("width", 0))
