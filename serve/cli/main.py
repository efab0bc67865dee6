"""`ryla`: run the service, call it, check its configuration, and test a deployment.

Each command imports what it alone needs where it runs, because Ray takes seconds to import and
`ryla --help` or `ryla call` should not wait for it.
"""

import base64
import errno
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from deployments.errors import CheckpointRefused
from serve.cli.console import console, print_error, print_line
from serve.cli.jobs import URL, Key, Url, call_job, cancel, job, jobs
from serve.cli.output import accepted_by, fail, require_writable, write_result
from serve.cli.profile import profile
from serve.cli.top import top
from serve.cli.verify import verify
from serve.client import CallFailed, Client
from serve.http.version import VERSION

SUMMARY = "`ryla`: run the service, call it, check its configuration, and test a deployment."
app = typer.Typer(name="ryla", no_args_is_help=True, add_completion=False, help=SUMMARY)
models = typer.Typer(no_args_is_help=True, help="Check model files.")
app.add_typer(models, name="models")

DEMO_TIMEOUT_S = 900
MEDIA_FIELDS = ("_image", "_video", "_face")
"""The suffixes of the fields that take an image or a video."""
LONGEST_PATH = 256
"""The most characters of a value that may be the name of a file; others are base64."""


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"ryla-serve {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """`ryla`: run the service, call it, check its configuration, and test a deployment."""


@app.command()
def serve(
    preset: Annotated[str, typer.Argument(help="demo, single-gpu, production, or a Serve config file.")] = "demo",
    host: Annotated[
        str | None, typer.Option(help="Address to listen on instead of the config's; 0.0.0.0 listens on all.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on instead of the config's.")] = None,
) -> None:
    """Run the service on this machine until Ctrl-C. The Ray dashboard is on port 8265.

    It ends with an error when the service is lost, so that a supervisor can start it again.
    """
    from serve.cli.presets import find_preset, listening_on
    from serve.cli.service import ServiceFailed, joins_a_cluster, log_folder, run_service

    path = find_preset(preset)
    if found := _faults_of(_read(path), path.name, files=not joins_a_cluster(), keys=not joins_a_cluster())[1]:
        fail(*found)
    if host is not None or port is not None:
        path = listening_on(path, host, port)
    print_line(f"Starting {path.name}. Logs: {log_folder()}. Ray dashboard: http://127.0.0.1:8265")
    print_line("If the dashboard asks for a token, it is in ~/.ray/auth_token (or run `ray get-auth-token`).")
    try:
        run_service(path, print_line)
    except CallFailed as e:
        fail(str(e))
    except ServiceFailed as e:
        fail(f"{e}; logs: {log_folder()}")


@app.command()
def call(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint, for instance wan2.6.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(help="field=value, or field=@file for an image or video; a field that is repeated becomes a list."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write, or - for standard output; its extension selects the format. Default: the endpoint's name.",
        ),
    ] = None,
    as_job: Annotated[
        bool, typer.Option("--job", help="Make a job, show its progress, and survive lost connections and restarts.")
    ] = False,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="With --job: Ctrl-C cancels the job, which goes on otherwise.")
    ] = False,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Call an endpoint and write the result to a file."""
    name = endpoint.strip("/")
    if cancel_on_interrupt and not as_job:
        fail("--cancel-on-interrupt needs --job", status=2)
    if not name:
        from serve.cli.smoke import ENDPOINTS

        fail(f"name an endpoint: {', '.join(ENDPOINTS)}", status=2)
    require_writable(output or Path(name))
    accept = "*/*" if output is None else accepted_by(output)
    values: dict[str, list[str]] = {}
    for field, value in map(_parse_field, fields or []):
        values.setdefault(field, []).append(value)
    body = {field: several if several[1:] else several[0] for field, several in values.items()}
    if as_job:
        call_job(name, body, output=output, url=url, key=key, cancel_on_interrupt=cancel_on_interrupt)
        return
    try:
        with Client(url, key=key) as client:
            answer = client.call(name, body, accept=accept)
    except CallFailed as e:
        if e.status not in (404, 405):
            fail(str(e))
        from serve.http.endpoints import path_hint

        fail(f"{e}{path_hint(name)}")
    write_result(answer, output or Path(f"{name}.{answer.extension}"), endpoint=name)


for command in (job, jobs, cancel, top, profile, verify):
    app.command()(command)


@app.command()
def smoke(
    url: Annotated[str, typer.Argument(envvar="RYLA_URL", help="URL of the service.")] = URL,
    save: Annotated[Path | None, typer.Option(help="Folder to save the results in.")] = None,
    key: Key = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until the service accepts requests.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole test, the wait included.")] = 7200,
) -> None:
    """Call all seven endpoints, decode the results and print a table; fail if anything is wrong.

    Starts models that are scaled to zero.
    """
    from serve.cli.smoke import run_smoke

    _require_folder(save)
    deadline = time.monotonic() + timeout
    try:
        with Client(url, key=key) as client:
            if wait:
                client.wait(min(wait, timeout))
            else:
                client.check_reachable()
            ok = run_smoke(client, save, deadline)
    except CallFailed as e:
        fail(str(e))
    if not ok:
        raise typer.Exit(1)


@app.command()
def demo(save: Annotated[Path, typer.Option(help="Folder to save the results in.")] = Path("test-output")) -> None:
    """Start the demo, call all seven endpoints, save the results and stop the demo."""
    from serve.cli.presets import find_preset
    from serve.cli.service import running
    from serve.cli.smoke import run_smoke

    _require_folder(save)
    try:
        with running(find_preset("demo")) as client:
            ok = run_smoke(client, save, time.monotonic() + DEMO_TIMEOUT_S)
    except CallFailed as e:
        fail(str(e))
    if not ok:
        raise typer.Exit(1)


@app.command()
def check(
    config: Annotated[
        str,
        typer.Argument(help="Serve config file, Kubernetes manifests with a RayService, a preset, or - for standard input."),
    ],
    files: Annotated[
        bool, typer.Option("--files", help="Also check that the model files named in the config exist on this machine.")
    ] = False,
) -> None:
    """Check a configuration before you deploy it: `helm template ... | ryla check -`."""
    from serve.cli.presets import find_preset

    data = sys.stdin.buffer.read() if config == "-" else _read(find_preset(config))
    checked, found = _faults_of(data, "standard input" if config == "-" else config, files=files)
    if found:
        fail(*found)
    console.print(f"No faults in {checked} configuration(s).")


@models.command("check")
def check_models(
    folder: Annotated[Path, typer.Argument(help="Folder with models; its subfolders are searched too.")],
    checksums: Annotated[Path | None, typer.Option(help="File of SHA-256 sums, as `sha256sum` writes it.")] = None,
) -> None:
    """Say what each model file is for, and what is wrong with it.

    A folder without video models must have the face models that FaceSwapper needs. With checksums,
    also check that the files match them.
    """
    from deployments.faces.models.files import check_files, read_checksums

    table = Table(*(Column(name, overflow="fold") for name in ("model", "setting", "file", "verdict")))
    faulty, absent = 0, []
    try:
        videos = _video_findings(folder)
        for finding in videos:
            faulty += bool(finding.faults)
            verdict = "; ".join(finding.faults) or "good"
            path = str(finding.path.relative_to(folder))
            table.add_row(finding.model, finding.setting, path, verdict, style="red" if finding.faults else None)
        for report in check_files(folder, {} if checksums is None else read_checksums(checksums)):
            if videos and report.path is None and not any(folder.rglob("*.onnx")):
                continue  # a folder of video models alone
            if report.path is None and not report.faults:
                absent.append(report.signature.model)
                continue
            faulty += bool(report.faults)
            file = "" if report.path is None else str(report.path.relative_to(folder))
            style = "red" if report.faults else None
            table.add_row(
                report.signature.model, report.signature.setting, file, "; ".join(report.faults) or "good", style=style
            )
    except (CheckpointRefused, OSError) as e:
        print_error(str(e))
        raise typer.Exit(1) from None
    console.print(table, markup=False)
    if absent:
        console.print(f"Missing, but optional: {'; '.join(absent)}.", markup=False)
    if faulty:
        fail(f"{folder}: {faulty} model file(s) are missing or faulty")


@app.command()
def rollout(
    name: Annotated[str, typer.Argument(help="Name of the RayService.")],
    namespace: Annotated[str, typer.Option(envvar="RYLA_NAMESPACE", help="Namespace of the RayService.")] = "default",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 1800,
) -> None:
    """Run inside a pod: wait until KubeRay has rolled out a RayService; fail if it cannot."""
    from serve.cli.rollout import RolloutFailed, await_rollout, in_cluster

    try:
        with in_cluster() as api:
            await_rollout(api, namespace, name, timeout_s=timeout, say=print_line)
    except RolloutFailed as e:
        print_error(str(e))
        raise typer.Exit(1) from None


def _video_findings(folder: Path) -> list[Any]:
    """Return what the video models below ``folder`` are; their library is loaded only for some."""
    endings = (".safetensors", ".gguf", ".pth", ".pt", ".bin", ".ckpt")
    if not any(path.suffix in endings or path.name == "model_index.json" for path in folder.rglob("*")):
        return []
    from deployments.video.checkpoints.check import check_video_models

    return list(check_video_models(folder))


def _faults_of(data: bytes, name: str, *, files: bool, keys: bool = False) -> tuple[int, list[str]]:
    """Return how many configurations ``data`` contains, and a sentence for each fault."""
    from serve.cli.config_check import documents, faults

    checked = 0
    found: list[str] = []
    try:
        for document, serve_config, service in documents(data.decode()):
            checked += 1
            found += [f"{document}: {fault}" for fault in faults(serve_config, service, files=files, keys=keys)]
    except ValueError as e:  # a UnicodeDecodeError is one too
        found.append(f"{name}: {e}")
    if not checked and not found:
        found.append(f"{name} contains neither a Serve config nor a RayService")
    return checked, found


def _require_folder(folder: Path | None) -> None:
    """Create a folder for results; exit with 2 if it cannot be created."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        fail(f"no results can be saved in {folder}: {e.strerror}", status=2)
    if not os.access(folder, os.W_OK | os.X_OK):
        fail(f"no results can be saved in {folder}: {os.strerror(errno.EACCES)}", status=2)


def _read(config: Path) -> bytes:
    """Return what is in a config file; exit with 2 if it cannot be read."""
    try:
        return config.read_bytes()
    except OSError as e:
        fail(f"{config} cannot be read: {e.strerror}", status=2)


def _parse_field(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"`{text}` must have the form field=value")
    if value.startswith("@"):
        try:
            return name, base64.b64encode(Path(value[1:]).read_bytes()).decode()
        except OSError as e:
            raise typer.BadParameter(f"{name}: {value[1:]}: {e.strerror}") from None
    if name.endswith(MEDIA_FIELDS) and len(value) < LONGEST_PATH and os.path.isfile(value):
        raise typer.BadParameter(f"`{text}` sends the name and not the file; send the file with {name}=@{value}")
    return name, value


if __name__ == "__main__":
    app()
