"""Attacks by requests that are well formed but costly to read, and by a caller who sends many."""

import contextlib
import itertools
import json
import socket
from threading import Event

from loadtest.attacks import PAUSE_S, TIMEOUT_S, Address, Tally, authorization, connected, post, read_status, readable, send_all
from serve.http.examples import payload

BOUNDARY = "b0undary"
REQUESTS_AT_ONCE = 16


def many_json_fields(count: int) -> bytes:
    """Return a JSON object of ``count`` unknown fields."""
    return json.dumps({f"source_imagf{number}": number for number in range(count)}).encode()


def many_form_fields(count: int) -> bytes:
    """Return a multipart form of ``count`` unknown fields."""
    parts = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="promqt{number}"\r\n\r\nx\r\n' for number in range(count))
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


def nested_json(depth: int) -> bytes:
    """Return a JSON document of ``depth`` nested arrays."""
    return b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"


def comma_json(count: int) -> bytes:
    """Return a JSON document with an array of ``count`` numbers."""
    return b'{"prompt": [' + b"0," * (count - 1) + b"0]}"


def comma_form(field: str, count: int) -> bytes:
    """Return a multipart form whose ``field`` is a text of ``count`` commas."""
    return _one_part(field, b"," * count)


def object_form(field: str, count: int) -> bytes:
    """Return a multipart form whose ``field`` is the JSON text of ``count`` empty objects."""
    return _one_part(field, b"[" + b"{}," * (count - 1) + b"{}]")


def escaped_commas(field: str, count: int) -> bytes:
    """Return a JSON object whose ``field`` is a text of ``count`` commas, none of them in plain."""
    return f'{{"{field}": "'.encode() + b"\\u002c" * count + b'"}'


def long_number(field: str, digits: int) -> bytes:
    """Return a JSON object whose ``field`` is a whole number of so many digits."""
    return f'{{"{field}": {10 ** (digits - 1)}}}'.encode()


def _one_part(field: str, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def costly_requests() -> list[tuple[str, bytes, bool]]:
    """Return the paths and bodies of ``costly_bodies``, and whether each body is a form."""
    return [
        ("/wan2.6", many_json_fields(80_000), False),
        ("/image-faceswap", many_form_fields(25_000), True),
        ("/wan2.6", nested_json(1_000_000), False),
        ("/wan22-i2v", comma_json(1_000_000), False),
        ("/image-faceswap", comma_form("mask_regions", 2_000_000), True),
        ("/image-faceswap", comma_form("mask_padding", 2_000_000), True),
        ("/image-faceswap", object_form("pairs", 700_000), True),
        ("/image-faceswap", escaped_commas("mask_regions", 350_000), False),
        ("/image-faceswap", escaped_commas("pairs", 350_000), False),
        ("/image-faceswap", long_number("mask_padding", 400), False),
    ]


def form(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST request with a multipart form."""
    return post(path, body, *headers).replace(b"application/json", f"multipart/form-data; boundary={BOUNDARY}".encode(), 1)


def costly_bodies(address: Address, stop: Event, tally: Tally) -> None:
    """Send bodies of many fields, deep brackets and many commas, nearly all of some 2 MB."""
    requests = [(form if is_form else post)(path, body, authorization()) for path, body, is_form in costly_requests()]
    while not stop.is_set():
        with contextlib.suppress(OSError), connected(address) as connection:
            send_all(connection, requests[tally.rounds % len(requests)])
            tally.count(read_status(connection))
        tally.rounds += 1
        stop.wait(PAUSE_S)


def forged_addresses(address: Address, stop: Event, tally: Tally) -> None:
    """Claim to be another caller in each request, in every header that proxies use for that."""
    names = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP")
    while not stop.is_set():
        host = f"10.{tally.rounds // 65536 % 256}.{tally.rounds // 256 % 256}.{tally.rounds % 256}"
        headers = [f"{name}: {'for=' if name == 'Forwarded' else ''}{host}" for name in names]
        with contextlib.suppress(OSError), connected(address) as connection:
            send_all(connection, post("/image-faceswap", b'{"source_image": "x"}', authorization(), *headers))
            tally.count(read_status(connection))
        tally.rounds += 1
        stop.wait(0.1)


def greedy_caller(address: Address, stop: Event, tally: Tally) -> None:
    """Keep requests to every endpoint in progress with one valid key, each for five seconds."""
    names = itertools.cycle(["image-faceswap", "wan2.6", "batch-video-faceswap", "wan22-i2v", "image-faceswap"])
    held: list[socket.socket] = []
    while not stop.is_set():
        while len(held) < REQUESTS_AT_ONCE:
            name = next(names)
            request = post(f"/{name}", json.dumps(payload(name)).encode(), authorization(), "Request-Timeout: 5")
            try:
                connection = socket.create_connection(address, timeout=TIMEOUT_S)
            except OSError:
                tally.count("refused")
                break
            send_all(connection, request)
            held.append(connection)
        for connection in readable(held, PAUSE_S):
            tally.count(read_status(connection))
            connection.close()
            held.remove(connection)
        tally.rounds += 1
        stop.wait(PAUSE_S)
    for connection in held:
        connection.close()


BODY_ATTACKS = {"costly bodies": costly_bodies, "forged addresses": forged_addresses}
