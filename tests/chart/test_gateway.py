"""The gateway: what nginx does with the configuration that the chart renders."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helm.generator.paths import CHART
from serve.config import ProxySettings
from serve.problems import TITLES
from tests.chart.nginx import Service, answer, files, free_port, gateway, read_answer, say_nothing, send
from tests.chart.rendering import Json, Refused, one, pod_templates, render

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None, reason="nginx is not installed"
)
HEAD = b"GET /limits HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
SHORT = {"proxy_connect_timeout 2s": "proxy_connect_timeout 300ms"}
POST = b"POST /wan2.6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


def _header(size: int) -> bytes:
    return b"x-a: " + b"a" * size + b"\r\n"


@needs_nginx
@pytest.mark.parametrize(
    "head",
    [
        HEAD + _header(200_000),
        HEAD + _header(1000) * 200,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n",
        HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(20_000)),
    ],
    ids=["one header", "many headers", "request line", "many small headers"],
)
def test_a_head_over_the_limit_is_a_431_and_never_reaches_the_service(tmp_path: Path, head: bytes) -> None:
    service = Service(answer)
    with gateway(tmp_path, service.port) as port:
        status, headers, body = read_answer(send(port, head))
        assert status == 431
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(body)
        assert (problem["type"], problem["status"]) == ("urn:ryla:problem:head-too-large", 431)
        assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", problem["instance"])
        assert headers["x-request-id"] == problem["request_id"]
        assert read_answer(send(port, HEAD, b"\r\n"))[0] == 200
    assert service.requests == 1
    service.close()


@needs_nginx
@pytest.mark.parametrize("header", [_header(60_000), _header(1000) * 60], ids=["one header", "many headers"])
def test_a_head_below_the_limit_reaches_the_service(tmp_path: Path, header: bytes) -> None:
    seen: list[bytes] = []

    def record(connection: socket.socket, head: bytes) -> None:
        seen.append(head)
        answer(connection, head)

    service = Service(record)
    with gateway(tmp_path, service.port) as port:
        assert read_answer(send(port, HEAD, b"X-Request-Id: mine\r\n", header, b"\r\n"))[0] == 200
    assert header in seen[0]
    assert b"X-Request-Id: mine\r\n" in seen[0]
    service.close()


@needs_nginx
def test_slow_connections_are_closed_and_do_not_hold_up_others(tmp_path: Path) -> None:
    service = Service(answer)
    with gateway(tmp_path, service.port, {"client_header_timeout 10000ms": "client_header_timeout 300ms"}) as port:
        slow = [send(port, HEAD) for _ in range(200)]
        assert read_answer(send(port, HEAD, b"\r\n"))[0] == 200
        for connection in slow:
            with connection:
                assert connection.recv(1) == b""
    assert service.requests == 1
    service.close()


@needs_nginx
def test_a_body_that_stalls_ends_the_request(tmp_path: Path) -> None:
    left = threading.Event()

    def read(connection: socket.socket, _: bytes) -> None:
        while connection.recv(65536):
            pass
        left.set()

    service = Service(read)
    with gateway(tmp_path, service.port, {"client_body_timeout 20000ms": "client_body_timeout 300ms"}) as port:
        with send(port, POST, b"Content-Length: 100\r\n\r\n", b"{") as connection:
            assert connection.recv(1) == b""
        assert left.wait(60), "the connection to the service ends as well"
    service.close()


@needs_nginx
def test_a_body_over_the_limit_is_a_413(tmp_path: Path) -> None:
    service = Service(answer)
    with gateway(tmp_path, service.port) as port:
        status, _, body = read_answer(send(port, POST, b"Content-Length: 67108865\r\n\r\n"))
        assert status == 413
        problem = json.loads(body)
        assert problem["type"] == "urn:ryla:problem:body-too-large"
        assert "67108864 bytes" in problem["detail"]
        assert service.requests == 0
        assert read_answer(send(port, POST, b"Content-Length: 3\r\n\r\nabc"))[0] == 200
    service.close()


@needs_nginx
def test_bodies_and_results_pass_as_they_arrive(tmp_path: Path) -> None:
    """Each side waits for the other's part, so a gateway that collects either never ends."""

    def converse(connection: socket.socket, head: bytes) -> None:
        while b"first" not in head:
            head += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nprogress")
        while b"second" not in head:
            head += connection.recv(65536)
        connection.sendall(b"end")

    service = Service(converse)
    with gateway(tmp_path, service.port) as port:
        connection = send(port, POST, b"Content-Length: 11\r\n\r\nfirst")
        seen = b""
        while b"progress" not in seen:
            seen += connection.recv(65536)
        connection.sendall(b"second")
        while b"end" not in seen:
            seen += connection.recv(65536)
        connection.close()
    service.close()


@needs_nginx
def test_the_service_notices_that_a_caller_left(tmp_path: Path) -> None:
    ready, left = threading.Event(), threading.Event()

    def wait(connection: socket.socket, _: bytes) -> None:
        ready.set()
        if connection.recv(1) == b"":
            left.set()

    service = Service(wait)
    with gateway(tmp_path, service.port) as port:
        connection = send(port, HEAD, b"\r\n")
        assert ready.wait(60)
        connection.close()
        assert left.wait(60)
    service.close()


@needs_nginx
def test_an_answer_that_comes_before_the_body_has_ended_is_passed_on(tmp_path: Path) -> None:
    def refuse(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nkey")

    service = Service(refuse)
    with gateway(tmp_path, service.port) as port:
        status, _, body = read_answer(send(port, POST, b"Content-Length: 1000000\r\n\r\n", b"a" * 1000))
        assert (status, body) == (401, b"key")
    service.close()


@needs_nginx
def test_a_request_that_the_service_drops_is_not_sent_twice(tmp_path: Path) -> None:
    service = Service(lambda connection, head: None)
    with gateway(tmp_path, service.port, lost_ports=[service.port]) as port:
        status, headers, body = read_answer(send(port, POST, b"Content-Length: 3\r\n\r\nabc"))
        assert (status, headers["retry-after"]) == (503, "10")
        assert json.loads(body)["type"] == "urn:ryla:problem:unavailable"
    assert service.requests == 1
    service.close()


@needs_nginx
def test_a_request_goes_to_another_proxy_if_no_connection_was_made(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def echo(connection: socket.socket, head: bytes) -> None:
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < 200_000:
            body += connection.recv(65536)
        seen.append(body)
        answer(connection, head)

    service = Service(echo)
    with _silent_port() as silent, gateway(tmp_path, service.port, SHORT, lost_ports=[silent, free_port()]) as port:
        body = b"0123456789" * 20_000
        for _ in range(3):
            connection = send(port, POST, b"Content-Length: 200000\r\n\r\n", body[:100_000])
            connection.sendall(body[100_000:])
            assert read_answer(connection)[0] == 200
    assert seen == [body] * 3
    service.close()


@needs_nginx
def test_a_service_that_cannot_be_reached_is_unavailable_and_not_slow(tmp_path: Path) -> None:
    with _silent_port() as silent, gateway(tmp_path, silent, SHORT, lost_ports=[silent]) as port:
        status, headers, body = read_answer(send(port, POST, b"Content-Length: 3\r\n\r\nabc"))
        assert (status, headers["retry-after"]) == (503, "10")
        assert json.loads(body)["type"] == "urn:ryla:problem:unavailable"


@needs_nginx
def test_a_service_that_does_not_answer_in_time_is_a_504(tmp_path: Path) -> None:
    service = Service(say_nothing)
    with gateway(tmp_path, service.port, {"proxy_read_timeout 2160s": "proxy_read_timeout 300ms"}) as port:
        status, _, body = read_answer(send(port, POST, b"Content-Length: 3\r\n\r\nabc"))
        assert (status, json.loads(body)["type"]) == (504, "urn:ryla:problem:timeout")
    service.close()


@contextmanager
def _silent_port() -> Iterator[int]:
    """A port that answers no attempt to connect, like the address of a pod that was lost."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as waiting:
        while True:  # until the queue of connections that nobody accepts is full
            try:
                waiting.enter_context(socket.create_connection(server.getsockname(), timeout=0.2))
            except TimeoutError:
                break
        yield server.getsockname()[1]


@needs_nginx
def test_only_refusals_of_its_own_are_logged_as_json(tmp_path: Path) -> None:
    service = Service(answer)
    with gateway(tmp_path, service.port) as port:
        assert read_answer(send(port, HEAD, b"\r\n"))[0] == 200
        forged = b"GET /%0A%22forged?secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n"
        assert read_answer(send(port, forged))[0] == 413
    lines = [line for line in (tmp_path / "refused.log").read_text().splitlines() if line.startswith("{")]
    (entry,) = map(json.loads, lines)
    assert (entry["status"], entry["path"]) == (413, "/%0A%22forged")
    service.close()


def _held(connection: socket.socket, _: bytes) -> None:
    """Answer only once the caller has left."""
    connection.recv(1)


@needs_nginx
def test_one_caller_cannot_take_all_connections_to_the_service(tmp_path: Path) -> None:
    """The callers are told apart by the word of a trusted load balancer, which this machine is."""
    service = Service(_held)
    values: Json = {"gateway": {"requestsPerCaller": 3, "trustedProxies": ["127.0.0.0/8"]}}
    # The caller chooses the first of the addresses, and the load balancer writes the last one.
    mine = [b"X-Forwarded-For: %d.2.3.4, 192.0.2.1\r\n" % n for n in range(4)]
    with gateway(tmp_path, service.port, values=values) as port:
        held = [send(port, HEAD, header, b"\r\n") for header in mine[:3]]
        service.await_requests(3)
        status, headers, body = read_answer(send(port, HEAD, mine[3], b"\r\n"))
        assert (status, headers["retry-after"]) == (503, "10")
        assert json.loads(body)["type"] == "urn:ryla:problem:unavailable"
        assert "3 requests from your address" in json.loads(body)["detail"]
        held.append(send(port, HEAD, b"X-Forwarded-For: 192.0.2.2\r\n\r\n"))
        service.await_requests(4)
        for connection in held:
            connection.close()
    service.close()


@needs_nginx
def test_a_caller_cannot_choose_the_address_by_which_it_is_counted(tmp_path: Path) -> None:
    service = Service(_held)
    with gateway(tmp_path, service.port, values={"gateway": {"requestsPerCaller": 1}}) as port:
        held = send(port, HEAD, b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
        service.await_requests(1)
        assert read_answer(send(port, HEAD, b"X-Forwarded-For: 192.0.2.2\r\n\r\n"))[0] == 503
        held.close()
    service.close()


@needs_nginx
def test_the_limit_for_one_caller_can_be_off(tmp_path: Path) -> None:
    service = Service(answer)
    with gateway(tmp_path, service.port, values={"gateway": {"requestsPerCaller": 0}}) as port:
        assert read_answer(send(port, HEAD, b"\r\n"))[0] == 200
    service.close()
    assert "limit_conn" not in files({"gateway": {"requestsPerCaller": 0}})["nginx.conf"]


def test_its_problems_are_those_of_the_service() -> None:
    for slug, title in re.findall(r'urn:ryla:problem:([a-z-]+)", "title": "([^"]+)"', files()["nginx.conf"]):
        assert TITLES.get(slug, title) == title
    assert "bad-request" in TITLES


def test_each_503_of_its_own_says_when_to_try_again() -> None:
    locations = re.findall(r"location = /\.problem/(\w+) \{(.*?)\n        \}", files()["nginx.conf"], re.DOTALL)
    refusing = {name for name, text in locations if "return 503" in text or "return 429" in text}
    assert refusing == {"unavailable", "too_many"}
    assert refusing == {name for name, text in locations if "add_header Retry-After" in text}


def test_it_follows_the_address_of_the_proxies_service(tmp_path: Path) -> None:
    """There may be no Service when nginx starts, and a new one may have another address."""
    address, calls = tmp_path / "address", tmp_path / "calls"
    os.mkfifo(calls)
    programs = {
        "getent": f"echo $2 >> {tmp_path}/asked; cat {address} || exit 2",
        "nginx": f'echo "$@" > {calls}',
        "sleep": "exec true",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = files()["start.sh"].replace("/tmp/", f"{tmp_path}/")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(["sh", "-c", script], env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            assert calls.read_text() == "-c /etc/ryla/nginx.conf -g daemon off;\n"
            assert (tmp_path / "cluster.conf").read_text().count("server 127.0.0.1:9 max_fails=0;") == 4
            for found, server in (("10.96.0.7", "10.96.0.7:8000"), ("fd00::a", "[fd00::a]:8000")):
                (tmp_path / "next").write_text(f"{found}  ryla-serve-svc.ryla.svc.cluster.local\n")
                (tmp_path / "next").rename(address)
                assert calls.read_text() == "-c /etc/ryla/nginx.conf -s reload\n"
                assert (tmp_path / "cluster.conf").read_text().count(f"server {server} max_fails=0;") == 4
            address.unlink()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert set((tmp_path / "asked").read_text().split()) == {"ryla-serve-svc"}


@pytest.mark.parametrize("mode", ["rayservice", "pod"])
def test_callers_reach_the_service_through_the_gateway(mode: str) -> None:
    objects = render({"mode": mode, "preset": "demo", "service": {"type": "LoadBalancer", "port": 80}})
    service = one(objects, "Service", "ryla")["spec"]
    assert (service["type"], service["ports"][0]["port"]) == ("LoadBalancer", 80)
    assert service["selector"]["app.kubernetes.io/component"] == "gateway"
    made = [one(objects, "RayService")["spec"]["serveService"]] if mode == "rayservice" else objects
    (proxies,) = [o for o in made if o["metadata"]["name"] == "ryla-serve-svc"]
    assert proxies["spec"].get("type", "ClusterIP") == "ClusterIP"
    spec = one(objects, "Deployment", "ryla-gateway")["spec"]
    assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("mode", ["rayservice", "pod"])
def test_without_it_callers_reach_the_proxies(mode: str) -> None:
    objects = render({"mode": mode, "preset": "demo", "gateway": {"enabled": False}})
    assert "ryla-gateway" not in [o["metadata"]["name"] for o in objects]
    if mode == "rayservice":
        assert one(objects, "RayService")["spec"]["serveService"]["metadata"]["name"] == "ryla"
        assert not [o for o in objects if o["kind"] == "Service"]
    else:
        assert one(objects, "Service")["spec"]["selector"]["app.kubernetes.io/component"] == "pod"


def test_a_changed_limit_replaces_the_gateway_but_not_the_cluster() -> None:
    before, after = (render({"gateway": {"connections": n}}) for n in (1000, 2000))
    annotations = [one(o, "Deployment", "ryla-gateway")["spec"]["template"]["metadata"]["annotations"] for o in (before, after)]
    assert annotations[0] != annotations[1]
    assert one(before, "RayService") == one(after, "RayService")


def test_an_incremental_upgrade_has_kuberay_s_gateway_instead() -> None:
    objects = render(None, CHART / "ci" / "incremental-values.yaml")
    assert not [o for o in objects if o["kind"] in ("Deployment", "Service")]


@pytest.mark.parametrize("name", ["redis", "gateway"])
def test_a_worker_group_cannot_be_called_like_another_component(name: str) -> None:
    with pytest.raises(Refused, match=f"{name} is the name of another component"):
        render({"extraWorkerGroups": [{"name": name}]})


def test_the_limits_that_the_template_repeats_are_the_settings_defaults() -> None:
    assert files() == files({"config": {"proxy": ProxySettings().model_dump()}})
    assert files() != files({"config": {"proxy": {"max_head_bytes": 2**15}}})


@pytest.mark.parametrize("values", [{}, {"mode": "pod", "preset": "demo"}])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_address_of_a_caller_is_the_gateways_word_only_where_there_is_one(values: Json, enabled: bool) -> None:
    objects = render({**values, "gateway": {"enabled": enabled}})
    runs_ray = 0
    for _, template in pod_templates(objects):
        env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0].get("env", [])}
        if "RYLA_PROXY" in env:
            runs_ray += 1
            assert env.get("FORWARDED_ALLOW_IPS") == ("*" if enabled else None)
    assert runs_ray
