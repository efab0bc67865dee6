"""Runs the service on this machine, and ends when it is lost."""

import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from serve.cli.console import waiting
from serve.cli.presets import address, url
from serve.cli.processes import NOT_STARTED, ProcessTree, adopt_orphans, end_with_parent, reap_orphans
from serve.cli.watch import Watch
from serve.client import CallFailed, Client
from serve.config import Limits, ProxySettings

START_TIMEOUT_S = float(os.environ.get("RYLA_START_TIMEOUT_S", "300"))
"""Seconds that a service may take to start."""

STOP_TIMEOUT_S = 45.0
"""Seconds that a service may take to stop. Kubernetes kills its pod after 60."""

POLL_S = 2.0
"""Seconds between two looks at the processes of a service."""

PROBE_S = 5.0
"""Seconds between two calls of a service that answers."""

PROXY_CHECK_S = 2.0
"""Seconds between two checks of Serve's proxy by its controller. A proxy that ended is replaced
after three of them."""

STOPPING = (signal.SIGINT, signal.SIGTERM)

PROXY = "serve.http.proxy:middlewares"
"""What Serve's proxy imports. The module itself would bring Ray into this process."""

DRIVER = ("-m", "serve.cli.driver")
COMMAND = ("-m", "serve.cli.main", "serve")
"""The arguments of Python with which `running` runs a service."""


class ServiceFailed(Exception):
    """The service did not start, or is lost; the message is one line that says why."""


def serve_environment(config: Path) -> dict[str, str]:
    """Return the environment to start Ray in.

    Serve's proxy finds our middleware in it, and all ports of Ray's own are on the loopback
    interface, unless Ray runs already (`RAY_ADDRESS`).
    """
    programs = str(Path(sys.executable).parent)
    # Ray has no other setting for this, and the name is historical: it is what Ray does on a Mac.
    loopback = {} if joins_a_cluster() else {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    # On a busy machine Ray gives up on parts of itself that only start slowly.
    patience = {
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": f"{START_TIMEOUT_S:g}",
        "RAY_agent_register_timeout_ms": f"{1000 * START_TIMEOUT_S:.0f}",
        # A new controller kills the replicas that it has not reached within this time.
        "RAY_SERVE_SLOW_STARTUP_WARNING_S": f"{START_TIMEOUT_S:.0f}",
    }
    # Serve replaces a proxy after three failed checks, with 10 s between them by default.
    checks = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": f"{PROXY_CHECK_S:g}"}
    # uvicorn would let any program of this machine name itself by X-Forwarded-For. It trusts nobody
    # if this is empty.
    peers = {"FORWARDED_ALLOW_IPS": ""}
    # Threads of PyTorch that spin for long while they wait for others of theirs keep a core from
    # these: on two cores, two videos at a time took ten times as long (docs/performance.md).
    waiting = {"GOMP_SPINCOUNT": "1000"}
    return {
        **loopback,
        **patience,
        **checks,
        **peers,
        **waiting,
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": PROXY,
        **proxy_environment(yaml.safe_load(config.read_text())["applications"]),
    }


def proxy_environment(applications: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variables that ``serve.http.proxy.middlewares`` reads.

    One proxy serves all applications, so it checks keys and origins only if there is a single one,
    at the root of the host. The ingress of each application checks them in any case.
    """
    settings = [application.get("args") or {} for application in applications]
    max_bytes = max(Limits(**args.get("limits", {})).max_body_bytes for args in settings)
    variables = {
        "RYLA_MAX_BODY_BYTES": str(max_bytes),
        "RYLA_PROXY": ProxySettings(**settings[0].get("proxy", {})).model_dump_json(),
    }
    if len(applications) == 1 and applications[0].get("route_prefix", "/") == "/":
        ingress = settings[0].get("ingress", {})
        if keys := ingress.get("api_keys"):
            variables["RYLA_API_KEYS"] = str(Path(keys).absolute())
        variables["RYLA_CORS_ORIGINS"] = " ".join(ingress.get("cors_origins", ()))
        if settings[0].get("provenance", {}).get("verify", {}).get("open"):
            variables["RYLA_OPEN_VERIFY"] = "1"
    return variables


def joins_a_cluster() -> bool:
    """Return whether the service runs in a Ray cluster that is there already."""
    return os.environ.get("RAY_ADDRESS", "local") != "local"


def log_folder() -> Path:
    """Return the folder with the logs of the latest start of Ray."""
    return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "session_latest", "logs")


def require_free_port(config: Path) -> None:
    """Raise CallFailed if a service with this config could not listen, or not alone.

    Ray's proxy does not notice another program: both would then share the connections.
    """
    bracketed, _, port = address(config).rpartition(":")
    host = bracketed.strip("[]")
    elsewhere = f"choose another address with --host or `http_options.host` in {config.name}"
    try:
        family, _, _, _, found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as e:
        raise CallFailed(f"{host} is not an address or the name of one ({e}): {elsewhere}") from None
    if not joins_a_cluster():
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(found)
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise CallFailed(f"no service can listen on {host}, port {port} ({e.strerror}): {elsewhere}") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        if probe.connect_ex(found) == 0:
            raise CallFailed(
                f"port {port} on {host} is in use: stop the program that listens there, or choose another port with "
                f"--port or `http_options.port` in {config.name}"
            )


def keep_token_private(home: Path) -> None:
    """Make Ray's token, with which anyone can run programs, readable to its owner only.

    Ray would write the file for everyone to read. A token in the environment needs no file.
    """
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or os.environ.get("RAY_AUTH_MODE") == "disabled":
        return
    file = home / ".ray" / "auth_token"
    try:
        if file.exists():
            file.chmod(0o600)
            return
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))
    except OSError as e:
        raise ServiceFailed(f"Ray's token cannot be kept in {file} ({e.strerror}); set HOME or RAY_AUTH_TOKEN_PATH") from e


def run_service(config: Path, say: Callable[[str], None]) -> None:
    """Run a service until SIGINT or SIGTERM ends it.

    ``say`` is called with what the start waits for. No Ray process is left running,
    whatever happens. Raises ServiceFailed if the service does not start, or is lost while it runs.
    """
    require_free_port(config)
    keep_token_private(Path.home())
    adopt_orphans()
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)  # SIGINT is ignored in a background job
    deadline = time.monotonic() + START_TIMEOUT_S
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            # A signal that comes while the driver is being started must find it complete.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            with _Driver(config) as driver, Client(url(config)) as client:
                try:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
                    _watch(driver, client, deadline=deadline, say=say)
                except _NotStarted as e:
                    say(f"Ray did not start and is started again: {e}")
                except KeyboardInterrupt:
                    driver.interrupt()
                    raise


class _NotStarted(Exception):
    """Ray itself did not start, which is worth another try: on a busy machine it gives up early."""


class _Driver:
    """Starts Ray in a program of its own. At the end of the block nothing of it is left."""

    def __init__(self, config: Path) -> None:
        self._report, report = os.pipe()
        os.set_blocking(self._report, False)
        self._process = subprocess.Popen(
            [sys.executable, *DRIVER, str(config), str(report)],
            env=serve_environment(config),
            stdin=subprocess.DEVNULL,
            pass_fds=[report],
            start_new_session=True,  # so that Ctrl-C reaches this process only, which passes it on
            preexec_fn=_in_driver,
        )
        os.close(report)
        self.tree = ProcessTree()

    def __enter__(self) -> "_Driver":
        return self

    def __exit__(self, *_: object) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # another Ctrl-C must not leave anything behind
        left = self.tree.kill()
        self._process.poll()
        os.close(self._report)
        for number in STOPPING:
            signal.signal(number, signal.default_int_handler)
        if left:
            raise ServiceFailed(f"these processes of the service could not be killed: {', '.join(map(str, left))}")

    def exit_code(self) -> int | None:
        """Return the exit code of the program, or None while it runs."""
        reap_orphans(but=self._process.pid)
        return self._process.poll()

    def reason(self) -> str:
        """Return why the program ended, as far as it said so."""
        try:
            text = os.read(self._report, 65536).decode(errors="replace")
        except BlockingIOError:
            text = ""
        return text or f"the program that runs Ray ended with exit code {self._process.poll()}"

    def interrupt(self) -> None:
        """Let the service end its requests and stop; return after a time limit at the latest."""
        # A second Ctrl-C ends the wait.
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_TIMEOUT_S)


def _in_driver() -> None:
    """Prepare the process of the driver."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the parent's mask is inherited


def _watch(driver: _Driver, client: Client, deadline: float, say: Callable[[str], None]) -> None:
    """Return never; raise when the service has not started by ``deadline``, or when it is lost."""
    _await_start(driver, client, deadline=deadline, say=say)
    watch, asked_at, silence = Watch(), float("-inf"), None
    said, all_ready = "", False
    while True:
        driver.tree.look()
        if silence is not None or time.monotonic() - asked_at > PROBE_S:
            silence, asked_at = client.silence(), time.monotonic()
        lost = watch.verdict(ended=driver.tree.ended(), missing=driver.tree.missing(), silence=silence)
        if lost is None and driver.exit_code() is not None:
            lost = driver.reason()
        if lost is not None:
            raise ServiceFailed(f"the service is lost: {lost}")
        if not all_ready and silence is None:
            waiting_for = client.waiting_for(also=("asleep",))
            all_ready = waiting_for is None
            said = _say_once(say, said, "every model is ready" if waiting_for is None else f"waiting for {waiting_for}")
        time.sleep(POLL_S)


def _await_start(driver: _Driver, client: Client, deadline: float, say: Callable[[str], None]) -> None:
    """Return when the service answers."""
    said = ""
    while (not_up := client.not_up()) is not None:
        driver.tree.look()
        code, late = driver.exit_code(), time.monotonic() > deadline
        dead = " and ".join(driver.tree.ended())
        if not late and (dead or code == NOT_STARTED):
            raise _NotStarted(f"{dead} ended" if dead else driver.reason())
        if dead or code is not None:
            raise ServiceFailed(f"the service did not start: {f'{dead} ended' if dead else driver.reason()}")
        if late:
            raise ServiceFailed(f"the service did not start in {START_TIMEOUT_S:g} s (RYLA_START_TIMEOUT_S): {not_up}")
        said = _say_once(say, said, f"waiting for {'the application' if driver.tree.runs_serve() else 'Ray'} to start")
        time.sleep(POLL_S)
    say(f"{client.url}/docs is ready")


def _say_once(say: Callable[[str], None], said: str, text: str) -> str:
    if text != said:
        say(text)
    return text


@contextlib.contextmanager
def running(config: Path, log: Path | None = None) -> Iterator[Client]:
    """Run a service while the block runs; every model is ready when the block begins."""
    require_free_port(config)
    log = log or Path("test-output/serve.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *COMMAND, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=end_with_parent,
        )
        try:
            with Client(url(config)) as client:
                _wait_until_ready(client, process, log)
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S + 30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    with waiting("starting the service") as say:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (waiting_for := client.waiting_for()) is not None:
            say(f"waiting for {waiting_for}")
            if process.poll() is not None:
                lines = log.read_text(errors="replace").split("\n")
                raise CallFailed(next((line for line in reversed(lines) if line.strip()), "the service ended") + f"; see {log}")
            if time.monotonic() > deadline:
                raise CallFailed(
                    f"the service did not start in {START_TIMEOUT_S:g} s (RYLA_START_TIMEOUT_S): "
                    f"still waiting for {waiting_for}; see {log}"
                )
            time.sleep(0.5)
