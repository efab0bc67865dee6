"""Draw the trace of one job of the demo, from its request to its webhook, with every span.

    python -m benchmarks.trace docs/images/trace.svg

It runs the demo with traces on, makes one job of /wan2.6-i2v-faceswap after one that warms up, and
draws what a collector of traces receives of it.
"""

import argparse
import base64
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import yaml

from benchmarks.span_receiver import SpanReceiver, receiving
from serve.cli.presets import PRESETS
from serve.cli.service import running
from serve.http.examples import payload

ENDPOINT = "wan2.6-i2v-faceswap"
TRACE_ID = "5f0c1e8a9b7d4c3e8f2a6b1d0c9e7f55"
LIMIT_S = 900.0
COLOURS = {"Ingress": "#4c78a8", "Runner": "#f58518", "Wan26": "#54a24b", "FaceSwapper": "#b279a2"}
"""The colour of each deployment's spans."""
OTHER = "#888888"
LEFT, WIDTH, ROW, TOP = 330, 620, 18, 58


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One span as it is drawn: times are in seconds from the beginning of the trace."""

    name: str
    deployment: str
    depth: int
    start: float
    seconds: float
    is_call: bool


def bars(spans: Sequence[tuple[Any, dict[str, str]]]) -> list[Bar]:
    """Return the spans of one trace, each below the one that it is a part of."""
    below: dict[bytes, list[tuple[Any, dict[str, str]]]] = {}
    ids = {span.span_id for span, _ in spans}
    for span, resource in spans:
        below.setdefault(span.parent_span_id if span.parent_span_id in ids else b"", []).append((span, resource))
    zero = min(span.start_time_unix_nano for span, _ in spans)
    found: list[Bar] = []

    def add(parent: bytes, depth: int) -> None:
        for span, resource in sorted(below.get(parent, []), key=lambda item: item[0].start_time_unix_nano):
            bar = Bar(
                name=span.name,
                deployment=resource.get("ryla.deployment", ""),
                depth=depth,
                start=(span.start_time_unix_nano - zero) / 1e9,
                seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                is_call=span.kind == span.SPAN_KIND_CLIENT,
            )
            found.append(bar)
            add(span.span_id, depth + 1)

    add(b"", 0)
    return found


def draw(found: Sequence[Bar]) -> str:
    """Return the picture as SVG. A call is an outline, and the work that it waits for is filled."""
    end = max(bar.start + bar.seconds for bar in found)
    height = TOP + ROW * len(found) + 12
    total = LEFT + WIDTH + 80
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{total}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        lines.append(f'<rect x="{12 + 110 * number}" y="10" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{30 + 110 * number}" y="20">{name}</text>')
    for tick in range(5):
        x = LEFT + WIDTH * tick / 4
        lines.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 8}" stroke="#dddddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle" fill="#555555">{end * tick / 4:.2f} s</text>')
    for row, bar in enumerate(found):
        y = TOP + ROW * row
        x, width = LEFT + WIDTH * bar.start / end, max(WIDTH * bar.seconds / end, 1.0)
        colour = COLOURS.get(bar.deployment, OTHER)
        fill = f'fill="none" stroke="{colour}"' if bar.is_call else f'fill="{colour}"'
        lines.append(f'<text x="{12 + 16 * bar.depth}" y="{y + 12}">{escape(bar.name)}</text>')
        lines.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 6}" {fill}/>')
        lines.append(f'<text x="{x + width + 4:.1f}" y="{y + 12}" fill="#555555">{_time(bar.seconds)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


class _Webhooks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def trace_of_a_job(collector: SpanReceiver, folder: Path, port: int) -> list[tuple[Any, dict[str, str]]]:
    """Run the demo, make a job with a webhook, and return its spans once all have arrived."""
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["http_options"]["port"] = port
    secrets = folder / "secrets"
    secrets.write_text("whsec_" + base64.b64encode(os.urandom(24)).decode() + "\n")
    webhooks = {"private_hosts": ["127.0.0.1"], "secret_file": str(secrets)}
    config["applications"][0]["args"]["jobs"] |= {"folder": str(folder / "jobs"), "webhooks": webhooks}
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump(config))
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), _Webhooks)
    Thread(target=receiver.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{receiver.server_port}/done"
    try:
        with running(path) as client, httpx.Client(base_url=client.url, timeout=LIMIT_S, trust_env=False) as http:
            http.post(f"/{ENDPOINT}", json=payload(ENDPOINT)).raise_for_status()
            headers = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01", "Webhook-Url": hook}
            http.post(f"/{ENDPOINT}", json=payload(ENDPOINT), headers=headers).raise_for_status()
            deadline = time.monotonic() + LIMIT_S
            while time.monotonic() < deadline:
                found = [(span, resource) for span, resource in collector.spans if span.trace_id.hex() == TRACE_ID]
                if {"webhook", "job", f"POST /{ENDPOINT}"} <= {span.name for span, _ in found}:
                    break
                time.sleep(0.5)
    finally:
        receiver.shutdown()
    # A replica sends what it has recorded when it ends, at the latest.
    return [(span, resource) for span, resource in collector.spans if span.trace_id.hex() == TRACE_ID]


def main() -> None:
    """Draw the trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--port", type=int, default=8392)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, receiving() as collector:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        found = bars(trace_of_a_job(collector, Path(folder), options.port))
    options.picture.write_text(draw(found))
    print(f"{options.picture}: {len(found)} spans")
    for bar in found:
        print(f"{'  ' * bar.depth}{bar.name} ({bar.deployment}): from {bar.start:.3f} s, {_time(bar.seconds)}")


if __name__ == "__main__":
    main()
