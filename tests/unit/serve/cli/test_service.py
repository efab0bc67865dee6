"""The service runs as a process of this machine, and its end is said in one line."""

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray.serve._private import constants
from uvicorn.middleware.proxy_headers import _TrustedHosts

from serve.cli import service
from serve.cli.presets import PRESETS
from serve.cli.processes import NOT_STARTED, is_alive
from serve.cli.service import (
    ServiceFailed,
    keep_token_private,
    proxy_environment,
    require_free_port,
    running,
    serve_environment,
)
from serve.cli.watch import MISSING_S
from serve.client import CallFailed, Client
from serve.config import Limits, ProxySettings
from serve.http.proxy import IMPORT_PATH
from tests.unit.serve.cli.fake_driver import FAKE_DRIVER, RUN, Supervised, config_file, write_plan

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Supervised] = []

    def start(does: str = "serve", **options: Any) -> Supervised:
        started.append(Supervised(tmp_path, does, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_service_in_order_and_leaves_nothing(start: Any, number: signal.Signals) -> None:
    service = start()
    service.lines_until("every model is ready")
    ray = service.ray()
    assert all(map(is_alive, ray))
    service.process.send_signal(number)
    code, lines = service.end()
    assert (code, lines) == (0, ["stopped by Ctrl-C"])
    assert not any(map(is_alive, ray))


@pytest.mark.parametrize(("victim", "name"), [(1, "Ray's raylet"), (2, "Ray's GCS server")])
def test_the_death_of_a_vital_process_ends_the_service_with_its_name(start: Any, victim: int, name: str) -> None:
    service = start()
    service.lines_until("every model is ready")
    ray = service.ray()
    ray[victim].kill()
    assert service.end() == (1, [f"the service is lost: {name} ended"])
    assert not any(map(is_alive, ray))


def test_the_death_of_the_driver_ends_the_service(start: Any) -> None:
    service = start()
    service.lines_until("every model is ready")
    ray = service.ray()
    ray[0].kill()
    code, lines = service.end()
    assert code == 1
    assert lines == ["the service is lost: the program that runs Ray ended with exit code -9"]
    assert not any(map(is_alive, ray)), "orphans are killed too"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_command_that_is_killed_takes_the_driver_along(start: Any) -> None:
    service = start()
    service.lines_until("every model is ready")
    driver, *_ = service.ray()
    service.process.kill()
    psutil.wait_procs([driver], 60)
    assert not is_alive(driver)


@pytest.mark.parametrize(
    ("does", "reason"),
    [("fail", "wan26: no such file"), ("fail silently", "the program that runs Ray ended with exit code 3")],
)
def test_a_start_that_fails_gives_the_reason_in_one_line(start: Any, does: str, reason: str) -> None:
    code, lines = start(does).end()
    assert (code, lines[-1]) == (1, f"the service did not start: {reason}")


def test_ray_is_started_again_if_it_did_not_start(start: Any) -> None:
    service = start("not start", times=2)
    lines = service.lines_until("every model is ready")
    assert lines.count("Ray did not start and is started again: the raylet timed out") == 2
    assert (service.folder / "starts").read_text().count("started") == 3


def test_ray_is_not_started_again_after_the_time_limit(start: Any) -> None:
    code, lines = start("not start", times=1000, timeout_s=0).end()
    assert (code, lines[-1].startswith("the service did not start")) == (1, True)


def test_a_start_waits_as_long_as_the_setting_says_and_says_for_what(start: Any) -> None:
    service = start("hang", timeout_s=3)
    code, lines = service.end()
    assert (code, lines[0]) == (1, "waiting for Ray to start")
    assert lines[-1].startswith("the service did not start in 3 s (RYLA_START_TIMEOUT_S): ")
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not any(str(service.folder) in command for command in commands), "nothing is left of it"


def test_the_driver_and_the_service_agree_on_an_exit_code() -> None:
    assert f"end({NOT_STARTED}," in FAKE_DRIVER


def test_a_service_runs_while_the_block_does_and_is_stopped_afterwards(tmp_path: Path, fake_command: Path) -> None:
    log = tmp_path / "logs" / "serve.log"
    with running(fake_command, log) as client:
        assert client.waiting_for() is None
        response = client._http.get("/readyz")
        assert json.loads(response.text)["models"]["environment"]["limit"] == "1000"
        ray = [psutil.Process(pid) for pid in json.loads((tmp_path / "children").read_text())]
        assert all(map(is_alive, ray))
    assert "stopped by Ctrl-C" in log.read_text().splitlines()
    assert not any(map(is_alive, ray))
    with Client(client.url) as other:
        assert other.waiting_for() == "the service", "the service is gone"


def test_a_service_of_a_background_job_is_stopped_too(tmp_path: Path, fake_command: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a background job
    try:
        with running(fake_command, tmp_path / "serve.log"):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped by Ctrl-C" in (tmp_path / "serve.log").read_text().splitlines()


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `running` run the fake driver; return its config."""
    config = write_plan(tmp_path, "serve")
    source = RUN.replace("sys.argv[2]", repr(str(tmp_path / "driver.py"))).replace("sys.argv[3]", "100")
    monkeypatch.setattr(service, "COMMAND", ("-c", source))
    return config


def test_a_service_that_does_not_start_is_an_error_with_its_reason_and_log(
    tmp_path: Path, fake_command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load(fake_command.read_text())
    config["plan"]["does"] = "fail"
    fake_command.write_text(yaml.safe_dump(config))
    log = tmp_path / "serve.log"
    with (
        pytest.raises(CallFailed, match=rf"^the service did not start: wan26: no such file; see {log}$"),
        running(fake_command, log),
    ):
        pytest.fail("the block must not run")
    assert "waiting for the service" in capsys.readouterr().out


def test_a_start_that_takes_too_long_says_what_it_waits_for(
    tmp_path: Path, fake_command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "START_TIMEOUT_S", 0.0)
    with (
        pytest.raises(CallFailed, match=r"did not start in 0 s \(RYLA_START_TIMEOUT_S\): still waiting for the service; see"),
        running(fake_command, tmp_path / "serve.log"),
    ):
        pytest.fail("the block must not run")


def test_a_service_that_does_not_stop_when_it_is_told_to_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    class Stubborn:
        """A process that ends only when it is killed."""

        def __init__(self, command: list[str], **_: object) -> None:
            events.append("started")

        def poll(self) -> int:
            return 1

        def send_signal(self, number: int) -> None:
            events.append(signal.Signals(number).name)

        def wait(self, timeout: float | None = None) -> None:
            if timeout is not None:
                raise subprocess.TimeoutExpired("serve", timeout)
            events.append("ended")

        def kill(self) -> None:
            events.append("killed")

    monkeypatch.setattr(subprocess, "Popen", Stubborn)
    with pytest.raises(CallFailed), running(config_file(tmp_path), tmp_path / "serve.log"):
        pytest.fail("the block must not run")
    assert events == ["started", "SIGTERM", "killed", "ended"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def _no_token_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_token_in_the_environment")
def test_rays_token_is_readable_to_its_owner_only(tmp_path: Path) -> None:
    keep_token_private(tmp_path)
    file = tmp_path / ".ray" / "auth_token"
    token = file.read_text()
    assert (len(token), mode(file), mode(file.parent)) == (64, 0o600, 0o700)
    file.chmod(0o644)  # as Ray writes it
    keep_token_private(tmp_path)
    assert (file.read_text(), mode(file)) == (token, 0o600)


@pytest.mark.usefixtures("_no_token_in_the_environment")
def test_a_home_without_room_for_the_token_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".ray").write_text("a file, and no folder")
    with pytest.raises(
        ServiceFailed, match=r"Ray's token cannot be kept in .*auth_token \(.*\); set HOME or RAY_AUTH_TOKEN_PATH"
    ):
        keep_token_private(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_TOKEN", "x"), ("RAY_AUTH_TOKEN_PATH", "/x"), ("RAY_AUTH_MODE", "disabled")]
)
@pytest.mark.usefixtures("_no_token_in_the_environment")
def test_no_token_is_written_that_ray_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    keep_token_private(tmp_path)
    assert not (tmp_path / ".ray").exists()


def test_ray_listens_on_the_loopback_interface_unless_it_runs_already_or_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variable = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(variable, raising=False)
    assert serve_environment(PRESETS / "demo.yaml")[variable] == "0"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert variable not in serve_environment(PRESETS / "demo.yaml")
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv(variable, "1")
    assert serve_environment(PRESETS / "demo.yaml")[variable] == "1"


def test_threads_of_models_do_not_spin_for_long_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two engines on two cores take ten times as long as with sleeping threads."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert serve_environment(PRESETS / "demo.yaml")["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert serve_environment(PRESETS / "demo.yaml")["GOMP_SPINCOUNT"] == "5"


def test_ray_knows_the_variable_for_the_loopback_interface() -> None:
    """It is no documented setting, so that another version of Ray may drop it."""
    source = "import ray._private.services as s; print(s.get_node_ip_address())"
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    result = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["127.0.0.1"]


def test_the_proxy_gets_the_body_limit_of_the_settings(tmp_path: Path) -> None:
    assert serve_environment(PRESETS / "demo.yaml")["RYLA_MAX_BODY_BYTES"] == str(Limits().max_body_bytes)
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["applications"][0]["args"]["limits"]["max_body_bytes"] = 1000
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    assert serve_environment(path)["RYLA_MAX_BODY_BYTES"] == "1000"


def test_serve_replaces_a_proxy_long_before_the_service_counts_as_lost() -> None:
    period_s = float(serve_environment(PRESETS / "demo.yaml")["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"])
    assert constants.PROXY_HEALTH_CHECK_UNHEALTHY_THRESHOLD * period_s <= MISSING_S / 3  # the rest is for its start
    chart = (Path(__file__).parents[4] / "helm/ryla-serve/templates/_helpers.tpl").read_text()
    assert f'{{name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S, value: "{period_s:g}"}}' in chart


def test_the_proxy_gets_its_settings_and_what_it_checks(tmp_path: Path) -> None:
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["applications"][0]["args"]["proxy"] = {"max_connections": 50}
    config["applications"][0]["args"]["ingress"] = {"api_keys": "keys", "cors_origins": ["https://a", "https://b"]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = serve_environment(path)
    assert ProxySettings.model_validate_json(environment["RYLA_PROXY"]) == ProxySettings(max_connections=50)
    assert environment["RYLA_API_KEYS"] == str(Path("keys").absolute())
    assert environment["RYLA_CORS_ORIGINS"] == "https://a https://b"


@pytest.mark.parametrize("second", [True, False], ids=["two applications", "not at the root"])
def test_keys_are_left_to_the_ingress_where_the_proxy_cannot_tell_whose_they_are(second: bool) -> None:
    application = {"route_prefix": "/" if second else "/a", "args": {"ingress": {"api_keys": "/keys"}}}
    variables = proxy_environment([application, {"route_prefix": "/b"}] if second else [application])
    assert sorted(variables) == ["RYLA_MAX_BODY_BYTES", "RYLA_PROXY"]


def test_ray_is_started_with_our_middleware_and_with_the_programs_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH")
    environment = serve_environment(PRESETS / "demo.yaml")
    assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["HF_HUB_OFFLINE"] == os.environ["HF_HUB_OFFLINE"], "the rest is inherited"


def test_a_port_that_is_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    require_free_port(path)
    port = yaml.safe_load(path.read_text())["http_options"]["port"]
    log = tmp_path / "serve.log"
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(CallFailed, match=f"port {port} on 127.0.0.1 is in use: stop the program that listens there"),
        running(path, log),
    ):
        pytest.fail("the block must not run")
    assert not log.exists()


def test_a_port_is_looked_for_at_an_address_of_ipv6_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as e:
        pytest.skip(f"this machine has no IPv6 ({e})")
    with server:
        path.write_text(yaml.safe_dump({"http_options": {"host": "::1", "port": server.getsockname()[1]}}))
        with pytest.raises(CallFailed, match="on ::1 is in use"):
            require_free_port(path)
    require_free_port(path)


def test_a_name_that_nothing_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = r"127.0.0.1 is not an address or the name of one \(.*not known\): choose another address with --host"
    with pytest.raises(CallFailed, match=message):
        require_free_port(config_file(tmp_path))


def test_a_cluster_that_is_there_may_listen_on_addresses_of_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    path = config_file(tmp_path)
    monkeypatch.setattr(socket.socket, "bind", taken)
    with pytest.raises(CallFailed, match=r"no service can listen on 127.0.0.1, port \d+ \(Cannot assign requested address\)"):
        require_free_port(path)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    require_free_port(path)


def test_no_peer_may_choose_its_address_unless_the_operator_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    trusted = serve_environment(PRESETS / "demo.yaml")["FORWARDED_ALLOW_IPS"]
    assert not any(host in _TrustedHosts(trusted) for host in ("127.0.0.1", "::1", "10.0.0.1", ""))
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    assert serve_environment(PRESETS / "demo.yaml")["FORWARDED_ALLOW_IPS"] == "10.0.0.1"
