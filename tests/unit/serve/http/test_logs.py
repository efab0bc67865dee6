"""No log line has a caller's key, prompt, picture or file name, wherever the caller puts it.

The lines are those of the ingress and of the Runner, which are in one process here, and of Serve's
proxy. Those about webhooks, of replicas and of `ryla` have tests beside their modules.
"""

import asyncio
import base64
import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from serve.http.openai.errors import OpenAIErrors
from serve.http.protocol.bounded_protocol import EXTENSION
from serve.http.protocol.connection import run_while_connected
from serve.problems import invalid
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope
from tests.unit.serve.http.service import make_service
from tests.unit.serve.http.wrapped_proxy import wrapped_as_serve_does

KEY = "sk-kolibri-x"
PROMPT = "a kolibri drinks nectar"
FILE = "kolibri.png"


def _picture() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 48), 90).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _picture()
TEXT = base64.b64encode(PICTURE).decode()
URI = f"data:image/png;name={FILE};base64,{TEXT}"
MARKS = ("kolibri", "nectar", TEXT[100:124], "iVBORw0KGgo")
"""What is part of each secret, and of no other text."""
FIELDS = (
    "prompt",
    "width",
    "steps",
    "cfg",
    "seed",
    "acceleration",
    "restore_face",
    "faces",
    "fps",
    "length",
    "negative_prompt",
)
PICTURES = ("reference_image", "source_image", "face_image", "source_video", "target_face", "input_reference")
PATHS = ("/wan2.6", "/wan2.6-i2v", "/wan22-i2v-faceswap", "/image-faceswap", "/batch-video-faceswap", "/v1/videos")
HEADERS = ("Prefer", "Idempotency-Key", "Webhook-Url", "Request-Timeout", "Accept", "Range", "Last-Event-ID", "If-Match")
QUERIES = (
    "/readyz?model=", "/jobs?state=", "/jobs?cursor=", "/jobs?limit=", "/v1/videos?after=", "/v1/videos?order=",
    "/v1/videos?limit=",
)  # fmt: skip
OF_A_JOB = ("/jobs/{id}/result?wait=", "/jobs/{id}/events?last_event_id=", "/v1/videos/{id}/content?variant=")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    keys = tmp_path / "keys"
    keys.write_text(f"anna {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    secrets = tmp_path / "webhooks"
    secrets.write_text("whsec_" + base64.b64encode(b"0" * 32).decode())
    webhooks = {"private_hosts": ["127.0.0.1"], "secret_file": str(secrets)}
    app = make_service(FakeGraph(), ingress={"api_keys": str(keys)}, jobs={"webhooks": webhooks})
    with TestClient(OpenAIErrors(app), raise_server_exceptions=False) as client:
        yield client


def wrong_bodies() -> Iterator[dict[str, Any]]:
    """Yield bodies that have the secrets where they do not belong."""
    for name in FIELDS:
        for value in (PROMPT, URI, [PROMPT], {PROMPT: PROMPT}, {"method": PROMPT}):
            yield {"prompt": PROMPT, name: value}
    for name in PICTURES:
        for value in (PROMPT, URI, TEXT[:-9], f"https://a.example/{FILE}?k={PROMPT}", [PROMPT], {"image_url": PROMPT}):
            yield {"prompt": PROMPT, "source_image": URI, "reference_image": URI, "face_image": URI, name: value}
    for model in (PROMPT, URI):
        yield {"prompt": PROMPT, "model": model, "size": model, "seconds": model}


def checked_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return all lines with their tracebacks, after a check that none has a secret."""
    formatter = logging.Formatter("%(name)s %(message)s")
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # httpx is the caller
    lines = [formatter.format(record) for record in ours]
    found = {line for line in lines if any(mark in line for mark in MARKS)}
    assert not found, "\n".join(sorted(found)[:40])
    return lines


@pytest.mark.slow
def test_no_log_line_has_what_callers_send(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    authorized = {"Authorization": f"Bearer {KEY}"}
    with caplog.at_level(logging.INFO):
        # What is right.
        statuses = [client.post("/wan2.6", json={"prompt": PROMPT}, headers=authorized).status_code]
        form = {"source_image": (FILE, PICTURE), "reference_image": (FILE, PICTURE)}
        statuses.append(client.post("/image-faceswap", files=form, headers=authorized).status_code)
        hook = {"Prefer": "respond-async", "Idempotency-Key": PROMPT.replace(" ", "-")}
        hook["Webhook-Url"] = f"http://127.0.0.1:9/{FILE}?secret={KEY}"
        job = client.post("/wan2.6-i2v", json={"prompt": PROMPT, "reference_image": URI}, headers={**authorized, **hook})
        video = client.post("/v1/videos", json={"prompt": PROMPT, "input_reference": {"image_url": URI}}, headers=authorized)
        for made in (job, video):
            link = f"/jobs/{made.json()['id']}"
            statuses += [
                client.get(f"{link}{part}", headers=authorized).status_code for part in ("/events", "/result?wait=60", "")
            ]
        assert statuses == [200, 200, 200, 200, 200, 200, 200, 200]
        # What is wrong: keys, values, names, queries and headers.
        for header in (f"Bearer {KEY}x", f"Basic {KEY}", KEY):
            assert client.post("/wan2.6", json={"prompt": PROMPT}, headers={"Authorization": header}).status_code == 401
        for path in PATHS:
            for body in wrong_bodies():
                strict = {"Prefer": "handling=strict"} if path == "/v1/videos" else {}
                client.post(path, json=body, headers={**authorized, **strict})
            client.post(path, content=f'{{"prompt": "{PROMPT}"', headers=authorized | {"Content-Type": "application/json"})
            client.post(path, content=URI, headers=authorized | {"Content-Type": f"text/{FILE}"})
            client.post(path, files={name: (FILE, PROMPT.encode()) for name in PICTURES}, headers=authorized)
        for name in HEADERS:
            for method, path in (
                ("POST", "/wan2.6"),
                ("POST", "/v1/videos"),
                ("GET", f"{link}/result"),
                ("GET", f"{link}/events"),
            ):
                sent: dict[str, Any] = {"json": {"prompt": PROMPT}} if method == "POST" else {}
                for value in (PROMPT, f"wait={PROMPT}", f"https://a.example/{FILE}"):
                    client.request(method, path, **sent, headers={**authorized, name: value})
        for query in (*QUERIES, *OF_A_JOB):
            for value in (PROMPT, URI[:200], KEY):
                client.get(query.replace("{id}", link.removeprefix("/jobs/")) + value, headers=authorized)
    assert len(checked_lines(caplog)) > 100


RIGHT = {"authorization": f"Bearer {KEY}"}
REFUSED_BY_THE_PROXY: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("/wan2.6", "", {"authorization": f"Bearer {KEY}x"}, 401),
    ("/wan2.6", "", {"authorization": f"Basic {KEY}"}, 401),
    ("/v1/videos", "", {"authorization": KEY}, 401),
    (f"/{PROMPT}", f"prompt={PROMPT}&key={KEY}", {}, 401),
    ("/wan2.6", "", {**RIGHT, "content-length": str(2**40)}, 413),
    ("/wan2.6", "a=" + URI * 20, RIGHT, 431),
    ("/wan2.6", "", {**RIGHT, "accept": ",".join(["kolibri"] * 9000)}, 431),
)
"""Paths, queries and headers that the proxy refuses, and the statuses with which it does."""


@pytest.mark.parametrize(("path", "query", "headers", "status"), REFUSED_BY_THE_PROXY)
async def test_no_log_line_of_the_proxy_has_what_callers_send(
    path: str,
    query: str,
    headers: dict[str, str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"anna {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    monkeypatch.setenv("RYLA_API_KEYS", str(keys))
    scope = {**http_scope(path, headers=headers), "query_string": query.encode(), "extensions": {EXTENSION: {}}}
    exchange = Exchange(body_messages(PROMPT.encode()))
    with caplog.at_level(logging.INFO):
        await wrapped_as_serve_does(EchoApp())(scope, exchange.receive, exchange.send)
    assert exchange.status == status
    assert any(str(status) in line for line in checked_lines(caplog))


async def test_work_that_fails_after_its_caller_left_is_logged_without_what_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange([])
    begun = asyncio.Event()

    async def refuse() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise invalid("size", f"`{PROMPT}` is no size")

    with caplog.at_level(logging.INFO):
        call = asyncio.ensure_future(run_while_connected(exchange.request(), refuse(), 60))
        await begun.wait()
        exchange.leave()
        with pytest.raises(ClientDisconnect):
            await call
    assert any("invalid-field" in line for line in checked_lines(caplog))
