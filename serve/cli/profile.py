"""`ryla profile`: where the time of a video goes, and what a process of the service does meanwhile.

Both need a machine of the cluster: the trace is asked of a replica through Ray, and py-spy looks
into a process of this machine.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from serve.cli.console import print_line
from serve.cli.jobs import URL, Key, Url
from serve.cli.output import fail
from serve.client import CallFailed, Client
from serve.models import INGRESS, RUNNER, WAN22_GGUF, WAN26, Model, find_model
from serve.route_table import EndpointName

APPLICATION = "ryla"
LOOPBACK = "127.0.0.1"
TRACE_TIMEOUT_S = 3600.0
"""Seconds within which a traced video must be made, a start of its model included."""
BUSY_WITH = EndpointName.IMAGE_FACESWAP.value
"""The endpoint that is called while py-spy looks at a process."""


class VideoModel(StrEnum):
    """The models whose trace can be taken. FaceSwapper's run in onnxruntime, which torch does not
    see."""

    wan26 = WAN26.name
    wan22_gguf = WAN22_GGUF.name


class Watched(StrEnum):
    """The processes into which py-spy can look."""

    ingress = "ingress"
    runner = "runner"
    proxy = "proxy"


TITLES = {
    Watched.ingress: f"ray::ServeReplica:{APPLICATION}:{INGRESS}",
    Watched.runner: f"ray::ServeReplica:{APPLICATION}:{RUNNER}",
    Watched.proxy: "ray::ProxyActor",
}
"""The beginning of the title of each process."""


class ProfileFailed(Exception):
    """There is no profile; the message says why in a line."""


def profile(
    save: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path("test-output"),
    model: Annotated[VideoModel, typer.Option(help="The model whose trace is taken.")] = VideoModel.wan26,
    size: Annotated[
        str,
        typer.Option(
            help="Width, height, frames and steps of the traced video, such as 832x480x33x30; default: the service's own."
        ),
    ] = "",
    process: Annotated[Watched, typer.Option(help="The process whose flame graph is drawn.")] = Watched.ingress,
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long py-spy looks at it.")] = 10,
    trace: Annotated[bool, typer.Option(help="Whether to take torch's trace of a video.")] = True,
    flame: Annotated[bool, typer.Option(help="Whether to draw the flame graph of a process.")] = True,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Write torch's trace of one video, and a flame graph of the ingress while it swaps faces.

    Open the trace in https://ui.perfetto.dev, and the flame graph in a browser.
    """
    chosen = find_model(model.value)
    assert chosen is not None
    try:
        with Client(url, key=key) as client:
            shape = _shape(client, chosen, size) if trace else {}
            save.mkdir(parents=True, exist_ok=True)
            if trace:
                path = save / f"{chosen.name}-trace.json.gz"
                path.write_bytes(take_trace(chosen, shape))
                print_line(f"{path}: torch's trace of one video, for https://ui.perfetto.dev")
            if flame:
                path = save / f"{process.value}-flame.svg"
                draw_flames(find_process(process), path, seconds=seconds, client=client)
                print_line(f"{path}: flame graph of the {process.value} over {seconds} s")
    except (ProfileFailed, CallFailed) as e:
        fail(str(e))
    except OSError as e:
        fail(f"no profile can be written to {save}: {e.strerror}", status=2)


def take_trace(model: Model, shape: Mapping[str, int]) -> bytes:
    """Have a replica of ``model`` make one video under torch's profiler, and return the trace."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    request = video_request(model, shape)
    with joined_cluster():
        try:
            handle = serve.get_deployment_handle(model.deployment, APPLICATION)
            found: Any = handle.profile.remote(request).result(timeout_s=TRACE_TIMEOUT_S)
        except (RayError, RayServeException, TimeoutError) as e:
            raise ProfileFailed(f"no trace of {model.name}: {str(e).strip().splitlines()[-1]}") from e
    return bytes(found)


def video_request(model: Model, shape: Mapping[str, int]) -> Any:
    """Return the request of the traced video: that of the example, without its face swap."""
    from deployments.wire import VideoRequest
    from serve.media.images import cover
    from serve.media.samples import portrait

    width, height = shape["width"], shape["height"]
    return VideoRequest(
        prompt="a portrait of an officer, the camera zooms in",
        negative_prompt="",
        width=width,
        height=height,
        num_frames=shape["num_frames"],
        steps=shape["steps"],
        cfg=3.0,
        seed=7,
        image=None if model.requires_prompt else cover(portrait(), width=width, height=height),
    )


@contextmanager
def joined_cluster() -> Iterator[None]:
    """Join the cluster of this machine while the block runs."""
    # Where `ryla serve` has started Ray, all of its ports are on the loopback interface, and a
    # program that joins it must know that before it imports Ray.
    if "ray" not in sys.modules and runs_on_loopback():
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    try:
        ray.init(address="auto", namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ProfileFailed(f"no Ray cluster can be joined on this machine ({reason}): run this on a node of it") from e
    try:
        yield
    finally:
        ray.shutdown()


def runs_on_loopback() -> bool:
    """Return whether a Ray of this machine has its ports on the loopback interface only."""
    return any(
        process.info["name"] == "raylet" and f"--node_ip_address={LOOPBACK}" in " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["name", "cmdline"])
    )


def find_process(kind: Watched) -> int:
    """Return the id of a process of this machine by its title; raise ProfileFailed if none runs."""
    for process in psutil.process_iter(["cmdline"]):
        if " ".join(process.info["cmdline"] or ()).startswith(TITLES[kind]):
            return int(process.pid)
    raise ProfileFailed(f"no {kind.value} runs on this machine: run this where one does, in its pod for instance")


def draw_flames(pid: int, path: Path, *, seconds: int, client: Client) -> None:
    """Write a flame graph of a process while it has a part in swaps of a face in a picture."""
    from serve.http.examples import payload

    body = payload(BUSY_WITH)
    py_spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    command = [py_spy, "record", "--pid", str(pid), "--duration", str(seconds), "--format", "flamegraph", "--output", str(path)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as recording:
            try:
                while recording.poll() is None:
                    client.call(BUSY_WITH, body)
            except CallFailed:
                recording.wait()  # what the process does then is in the picture as well
            said = recording.stdout.read() if recording.stdout is not None else ""
    except FileNotFoundError as e:
        raise ProfileFailed("py-spy is not installed: `pip install py-spy`") from e
    if recording.returncode:
        reason = (said.strip().splitlines() or ["it did not say why"])[-1]
        raise ProfileFailed(f"py-spy cannot look into process {pid} ({reason}): it needs root, or CAP_SYS_PTRACE in a pod")


def _shape(client: Client, model: Model, size: str) -> dict[str, int]:
    """Return the size of the traced video: as given, or as the service's defaults have it."""
    names = ("width", "height", "num_frames", "steps")
    if size:
        numbers = size.lower().split("x")
        if len(numbers) != len(names) or not all(number.isdecimal() for number in numbers):
            raise ProfileFailed(f"--size {size}: write width, height, frames and steps, such as 832x480x33x30")
        return dict(zip(names, map(int, numbers), strict=True))
    endpoints = client.limits()["endpoints"].values()
    defaults = next(endpoint["defaults"] for endpoint in endpoints if endpoint["models"] == [model.name])
    # The frames of a video made from a prompt alone have another name.
    return {name: int(defaults["length" if name == "num_frames" and name not in defaults else name]) for name in names}
