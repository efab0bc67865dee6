"""`ryla top`: what runs now, as a table that is drawn again and again, or as lines for scripts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serve.cli.console import console, error_console
from serve.cli.jobs import URL, Key, Url
from serve.cli.output import fail
from serve.cli.progress_bar import describe
from serve.cli.ray_dashboard import DashboardUnavailable, Gpu, RayDashboard
from serve.client import CallFailed, Client, JobRecord
from serve.client.records import State
from serve.models import MODELS

DASHBOARD = "http://127.0.0.1:8265"
STATES: tuple[State, ...] = ("running", "starting", "queued")
"""The states of jobs that are shown, in this order."""
SHOWN = 20
"""The most jobs of each state that are shown."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployment: its state as a caller sees it, its replicas, and what it runs on."""

    name: str
    state: str
    replicas: str
    hardware: str = ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What runs at one moment. ``notes`` say what could not be found out, and why."""

    deployments: Sequence[Deployment] = ()
    jobs: Sequence[JobRecord] = ()
    gpus: Sequence[Gpu] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def lines(self) -> Iterator[str]:
        """Yield a line for each thing that runs, with tabs between its values."""
        for deployment in self.deployments:
            yield _line("deployment", deployment.name, deployment.state, deployment.replicas, deployment.hardware)
        for job in self.jobs:
            yield _line("job", job.id, job.model, job.state, job.progress.stage, f"{job.progress.percent:.0f}", _left(job))
        for gpu in self.gpus:
            used = "" if gpu.used_percent is None else str(gpu.used_percent)
            yield _line("gpu", gpu.node, str(gpu.index), gpu.name, used, str(gpu.memory_used), str(gpu.memory_total))

    def drawn(self) -> Group:
        """Return the tables for a terminal. Whatever a service has sent is shown as it is."""
        deployments = Table("deployment", "state", "replicas", "hardware", box=None)
        for deployment in self.deployments:
            deployments.add_row(*map(Text, (deployment.name, deployment.state, deployment.replicas, deployment.hardware)))
        jobs = Table("your job", "model", "stage", "percent", box=None)
        for job in self.jobs:
            jobs.add_row(*map(Text, (job.id, job.model, describe(job), f"{job.progress.percent:.0f} %")))
        gpus = Table("node", "GPU", "busy", "memory (MiB)", box=None)
        for gpu in self.gpus:
            busy = "" if gpu.used_percent is None else f"{gpu.used_percent} %"
            memory = f"{gpu.memory_used} of {gpu.memory_total}"
            gpus.add_row(*map(Text, (gpu.node, f"{gpu.index} {gpu.name}", busy, memory)))
        parts = [
            deployments,
            jobs if self.jobs else Text("You have no waiting or running jobs."),
            *([gpus] if self.gpus else []),
        ]
        spaced = [part for each in parts for part in (each, Text())]
        return Group(*spaced, *(Text(note, style="yellow") for note in self.notes))


def look(client: Client, dashboard: RayDashboard | None) -> Snapshot:
    """Return what runs now. Without a dashboard there are no GPUs.

    Raises CallFailed if the service does not answer; what only the dashboard knows becomes a note.
    """
    notes: list[str] = []
    states: Mapping[str, Mapping[str, object]] = {}
    try:
        states = client.models()
    except CallFailed as e:
        if e.status is None:
            raise
        notes.append(str(e))  # no model can be used now, which is what the table is to show
    jobs = [record for state in STATES for record in client.jobs(state=state, limit=SHOWN)]
    replicas: Mapping[str, Mapping[str, int]] = {}
    gpus: list[Gpu] = []
    if dashboard is not None:
        try:
            replicas = dashboard.replicas()
            gpus = [gpu for node in dashboard.nodes() for gpu in node.gpus]
        except DashboardUnavailable as e:
            notes.append(f"Replicas of all deployments and GPUs are unknown: {e}")
    return Snapshot(deployments=_deployments(states, replicas), jobs=jobs, gpus=gpus, notes=notes)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print what runs now once, as tab-separated lines, and exit.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 2,
    dashboard: Annotated[
        str,
        typer.Option(
            envvar="RYLA_DASHBOARD",
            help="URL of Ray's dashboard. If it is empty, what only Ray knows is not shown, such as GPUs.",
        ),
    ] = DASHBOARD,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Show what runs: deployments and their replicas, your jobs with their stages, and GPUs."""
    try:
        with Client(url, key=key) as client:
            ray_dashboard = RayDashboard(dashboard) if dashboard else None
            if not once and not console.is_terminal:
                fail("the table needs a terminal: --once prints what runs now", status=2)
            if once:
                _print_once(look(client, ray_dashboard))
            else:
                _show(client, ray_dashboard, every)
    except (CallFailed, DashboardUnavailable) as e:
        fail(str(e))
    except KeyboardInterrupt:
        pass  # that is how it ends


def _print_once(snapshot: Snapshot) -> None:
    for line in snapshot.lines():
        # Rich would replace the tabs.
        print(line)
    for note in snapshot.notes:
        error_console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _show(client: Client, dashboard: RayDashboard | None, every_s: float) -> None:
    """Draw the tables again and again; while the service does not answer, say so below them."""
    snapshot = look(client, dashboard)
    with Live(snapshot.drawn(), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            time.sleep(every_s)
            note: Text | None = None
            try:
                snapshot = look(client, dashboard)
            except CallFailed as e:
                note = Text(str(e), style="red")
            live.update(Group(snapshot.drawn(), *([note] if note else [])), refresh=True)


def _deployments(states: Mapping[str, Mapping[str, object]], replicas: Mapping[str, Mapping[str, int]]) -> list[Deployment]:
    """Return the models' deployments first, and then those that only the dashboard knows."""
    models = {model.deployment: states.get(model.name, {}) for model in MODELS}
    names = [name for name in models if models[name] or name in replicas]
    names += [name for name in replicas if name not in models]
    found = []
    for name in names:
        state = models.get(name, {})
        known = replicas.get(name)
        counted = str(state.get("replicas", "")) if known is None else _counted(known)
        running = known is not None and known.get("RUNNING", 0) > 0
        found.append(
            Deployment(
                name=name,
                state=str(state.get("state") or ("ready" if running else "not ready")),
                replicas=counted,
                hardware=str(state.get("hardware") or state.get("reason") or ""),
            )
        )
    return found


def _counted(replicas: Mapping[str, int]) -> str:
    """Return the number of replicas that run, and those in other states."""
    others = [f"{count} {state.lower()}" for state, count in sorted(replicas.items()) if state != "RUNNING" and count]
    return ", ".join([str(replicas.get("RUNNING", 0)), *others])


def _left(job: JobRecord) -> str:
    return "" if job.progress.eta_s is None else f"{job.progress.eta_s:.0f}"


def _line(*values: str) -> str:
    """Return values with tabs between them; none of them can hold one, or a line's end."""
    return "\t".join(" ".join(value.split()) for value in values)
