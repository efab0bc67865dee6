"""`ryla`: run the service, call it, smoke-test a deployed one."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments.errors import CheckpointRefused
from serve.check import PROXY, documents, faults
from serve.client import ENDPOINTS, Answer, CallFailed, Client, Decoded
from serve.config import Limits
from serve.media import EXTENSIONS
from serve.overview import overview
from serve.rollout import RolloutFailed, await_rollout, in_cluster
from serve.samples import payload

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
models = typer.Typer(no_args_is_help=True, help="The model files.")
app.add_typer(models, name="models")
console = Console(width=None if sys.stdout.isatty() else 120)  # a log is no reason to cut the table

PRESETS = Path(__file__).parent / "presets"
URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="RYLA_URL", help="the service")]
Key = Annotated[str | None, typer.Option(envvar="RYLA_API_KEY", help="your key, where the service asks for one")]
START_TIMEOUT_S = 300
DEMO_TIMEOUT_S = 900


@app.command()
def serve(
    preset: Annotated[str, typer.Argument(help="demo, single-gpu, production, or a Serve config file")] = "demo",
    host: Annotated[str | None, typer.Option(help="address to listen on, instead of the config's; 0.0.0.0: all")] = None,
) -> None:
    """Runs the service on this machine until Ctrl-C; the Ray dashboard is at port 8265."""
    path = find_preset(preset)
    if host is not None:
        path = _listening(path, host)
    console.print(f"Starting {path.name}: http://{_address(path)}/docs when it is ready. Ray dashboard: http://127.0.0.1:8265")
    console.print("If the dashboard asks for a token, it is in ~/.ray/auth_token (or run `ray get-auth-token`).")
    os.execvpe("serve", ["serve", "run", str(path)], serve_environment(path))


@app.command()
def call(
    endpoint: Annotated[str, typer.Argument(help="for instance wan2.6")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(help="field=value, or field=@file for a picture or video; a field given again is a list"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="file to write, in the format of its ending; default: the endpoint's name"),
    ] = None,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Calls an endpoint and writes what it answers to a file."""
    given: dict[str, list[str]] = {}
    for name, value in map(_field, fields or []):
        given.setdefault(name, []).append(value)
    body = {name: values if values[1:] else values[0] for name, values in given.items()}
    ending = "" if output is None else output.suffix.lower().lstrip(".").replace("jpeg", "jpg")
    accept = next((media_type for media_type, known in EXTENSIONS.items() if known == ending), "*/*")
    try:
        with Client(url, key=key) as client:
            answer = client.call(endpoint.strip("/"), body, accept=accept)
    except CallFailed as e:
        console.print(f"[red]{e}[/red]")
        raise typer.Exit(1) from None
    path = output or Path(f"{endpoint.strip('/')}.{answer.extension}")
    path.write_bytes(answer.data)
    for name, value in answer.headers.items():
        if name.startswith("x-") or name == "server-timing":
            console.print(f"{name}: {value}", highlight=False)
    console.print(f"{path}: {len(answer.data)} bytes in {answer.seconds:.1f} s", highlight=False)


@app.command()
def smoke(
    url: Annotated[str, typer.Argument(envvar="RYLA_URL")] = URL,
    save: Annotated[Path | None, typer.Option(help="folder for the results")] = None,
    key: Key = None,
    wait: Annotated[float, typer.Option(help="seconds to wait for the service to accept requests")] = 0,
    timeout: Annotated[float, typer.Option(help="seconds for all of it, the wait included")] = 7200,
) -> None:
    """Calls all seven endpoints, decodes what comes, prints a table; fails if anything is wrong. Models that sleep are woken."""
    deadline = time.monotonic() + timeout
    with Client(url, key=key) as client:
        try:
            if wait:
                client.wait(min(wait, timeout))
        except CallFailed as e:
            console.print(f"[red]{e}[/red]")
            raise typer.Exit(1) from None
        ok = run_smoke(client, save, deadline)
    if not ok:
        raise typer.Exit(1)


@app.command()
def demo(save: Annotated[Path, typer.Option(help="folder for the results")] = Path("test-output")) -> None:
    """Starts the demo, calls all seven endpoints, saves the results and stops it again."""
    with running(find_preset("demo")) as client:
        ok = run_smoke(client, save, time.monotonic() + DEMO_TIMEOUT_S)
    if not ok:
        raise typer.Exit(1)


@app.command()
def check(
    config: Annotated[
        str, typer.Argument(help="a Serve config file, Kubernetes manifests with a RayService, a preset, or - for stdin")
    ],
    files: Annotated[bool, typer.Option("--files", help="also: are the model files that it names on this machine")] = False,
) -> None:
    """Checks settings before a cluster sees them: `helm template ... | ryla check -`."""
    text = sys.stdin.read() if config == "-" else find_preset(config).read_text()
    checked = 0
    wrong: list[str] = []
    for name, found, service in documents(text):
        checked += 1
        wrong += [f"{name}: {fault}" for fault in faults(found, service, files=files)]
    if not checked:
        wrong.append(f"{config} has neither a Serve config nor a RayService")
    for line in wrong:
        console.print(line, style="red", highlight=False, markup=False)
    if wrong:
        raise typer.Exit(1)
    console.print(f"{checked} checked, nothing wrong")


@models.command("check")
def check_models(
    folder: Annotated[Path, typer.Argument(help="where the face models are, folders in it included")],
    checksums: Annotated[Path | None, typer.Option(help="file of SHA-256 sums, as `sha256sum` writes it")] = None,
) -> None:
    """Verifies FaceSwapper's model files: there, of the published signature, and (given checksums) the right bytes."""
    from deployments.faces.files import check_files, read_checksums

    table = Table("model", "setting", "file", "verdict")
    wrong = 0
    try:
        for report in check_files(folder, {} if checksums is None else read_checksums(checksums)):
            wrong += bool(report.faults)
            file = "" if report.path is None else str(report.path.relative_to(folder))
            verdict = "; ".join(report.faults) or ("good" if report.path else "not there; optional")
            table.add_row(
                report.signature.what, report.signature.setting, file, verdict, style="red" if report.faults else None
            )
    except (CheckpointRefused, OSError) as e:
        console.print(str(e), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    console.print(table)
    if wrong:
        raise typer.Exit(1)


@app.command()
def rollout(
    name: Annotated[str, typer.Argument(help="the RayService")],
    namespace: Annotated[str, typer.Option(envvar="RYLA_NAMESPACE")] = "default",
    timeout: Annotated[float, typer.Option(help="seconds")] = 1800,
) -> None:
    """In a pod: waits until KubeRay has brought a RayService to what its spec says; fails if it cannot."""
    try:
        with in_cluster() as api:
            await_rollout(
                api, namespace, name, timeout_s=timeout, say=lambda line: console.print(line, highlight=False, markup=False)
            )
    except RolloutFailed as e:
        console.print(str(e), style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None


def find_preset(name: str) -> Path:
    """A preset by name, or a file."""
    path = PRESETS / f"{name}.yaml"
    if path.is_file():
        return path
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    console.print(f"[red]no preset and no file: {name}; presets: {known}[/red]")
    raise typer.Exit(2)


def serve_environment(config: Path) -> dict[str, str]:
    """The environment that Ray is started in: Serve's proxy reads its middleware and the body limit from there."""
    limits = [app.get("args", {}).get("limits", {}) for app in yaml.safe_load(config.read_text())["applications"]]
    most = max(Limits(**given).max_body_bytes for given in limits)
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": PROXY, "RYLA_MAX_BODY_BYTES": str(most)}


@contextlib.contextmanager
def running(config: Path, log: Path | None = None) -> Iterator[Client]:
    """A service from a Serve config file, stopped at the end; every model is ready when the block begins."""
    log = log or Path("test-output/serve.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["serve", "run", str(config)], env=serve_environment(config), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            with Client(f"http://{_address(config)}") as client:
                _wait(client, process, log)
                yield client
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    with _spinner() as progress:
        progress.add_task("starting the models")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not client.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CallFailed(f"the service did not start; see {log}")
            time.sleep(0.5)


def run_smoke(client: Client, save: Path | None, deadline: float) -> bool:
    """Calls all endpoints one after another until ``deadline`` (of the monotonic clock); whether all answers were right."""
    table = Table("endpoint", "seconds", "media type", "size", "frames", "swapped", "bytes", "GPU", "cost (USD)")
    answers: list[tuple[str, dict[str, Any], bytes]] = []
    with _spinner() as progress:
        task = progress.add_task("", total=len(ENDPOINTS))
        for name in ENDPOINTS:
            progress.update(task, description=f"/{name}")
            try:
                answer, decoded = client.smoke(name, deadline - time.monotonic())
            except CallFailed as e:
                table.add_row(f"/{name}", f"[red]{e}[/red]")
                continue
            finally:
                progress.advance(task)
            table.add_row(*_row(name, answer, decoded))
            answers.append((name, payload(name), answer.data))
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
                (save / f"{name}.{answer.extension}").write_bytes(answer.data)
    console.print(table)
    if save is not None and answers:
        overview(answers).save(save / "overview.png")
        console.print(f"Everything at a glance: {save / 'overview.png'}")
    return len(answers) == len(ENDPOINTS)


def _row(name: str, answer: Answer, decoded: Decoded) -> list[str]:
    headers = answer.headers
    return [
        f"/{name}",
        f"{answer.seconds:.1f}",
        decoded.media_type,
        f"{decoded.width}x{decoded.height}",
        str(decoded.frames),
        headers.get("x-frames-swapped", ""),
        str(len(answer.data)),
        headers["x-gpu-type"],
        headers["x-cost-usd"],
    ]


def _spinner() -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True)


def _field(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"`{text}` is not field=value")
    if value.startswith("@"):
        try:
            return name, base64.b64encode(Path(value[1:]).read_bytes()).decode()
        except OSError as e:
            raise typer.BadParameter(f"{name}: {e}") from None
    return name, value


def _listening(config: Path, host: str) -> Path:
    """A copy of a config file that listens on another address."""
    text = yaml.safe_load(config.read_text())
    text.setdefault("http_options", {})["host"] = host
    copy = Path(tempfile.mkdtemp(prefix="ryla-")) / config.name
    copy.write_text(yaml.safe_dump(text))
    return copy


def _address(config: Path) -> str:
    options = yaml.safe_load(config.read_text()).get("http_options", {})
    host = options.get("host", "127.0.0.1")
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{options.get('port', 8000)}"


if __name__ == "__main__":
    app()
