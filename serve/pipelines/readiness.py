"""The state of each model and of the Runner, as Serve's controller reports it."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from deployments import hardware
from serve.models import MODELS, RUNNER

State = Literal["ready", "starting", "asleep", "failed"]

MAX_AGE_S = 1.0
"""Seconds for which an answer of Serve's controller is used."""
TIMEOUT_S = 5.0
"""Seconds for which a call waits for the controller's answer."""


@dataclass(frozen=True)
class ModelState:
    """The state of one model, or of the Runner.

    ``reason`` says why a model failed to start; ``hardware`` describes what a ready model runs on
    and where its weights are.
    """

    state: State
    replicas: int
    reason: str | None = None
    hardware: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a request can be accepted: a model that is asleep starts when one comes."""
        return self.state in ("ready", "asleep")


class StateUnknown(Exception):
    """Serve's controller does not answer, or does not know this application yet."""


class Readiness:
    """Asks Serve's controller for the state of the models, at most once every ``MAX_AGE_S``.

    A call waits at most ``TIMEOUT_S``: the controller may be away together with the head node.
    """

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._query: asyncio.Future[dict[str, ModelState]] | None = None
        self._queried_at = float("-inf")

    async def of(self, model: str) -> ModelState:
        """Return the state of one model by its API name.

        Raise StateUnknown if Serve's controller cannot tell.
        """
        return (await self._states())[model]

    async def all(self) -> dict[str, ModelState]:
        """Return the states by API name; raise StateUnknown if Serve's controller cannot tell."""
        states = await self._states()
        return {model.name: states[model.name] for model in MODELS}

    async def runner(self) -> ModelState:
        """Return the state of the Runner; raise StateUnknown if Serve's controller cannot tell."""
        return (await self._states())[RUNNER]

    async def _states(self) -> dict[str, ModelState]:
        if self._query is None or (self._query.done() and time.monotonic() - self._queried_at > MAX_AGE_S):
            self._query = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        try:
            return await asyncio.wait_for(asyncio.shield(self._query), TIMEOUT_S)
        except (TimeoutError, KeyError, RayError, RayServeException) as e:
            raise StateUnknown from e

    def _ask(self) -> dict[str, ModelState]:
        try:
            deployments = deployments_of(self._app_name)
            states = {model: _state(deployments[model.deployment]) for model in MODELS}
            named = {model.name: self._with_hardware(state, model.deployment) for model, state in states.items()}
            return {**named, RUNNER: _state(deployments[RUNNER])}
        finally:
            self._queried_at = time.monotonic()

    def _with_hardware(self, state: ModelState, deployment: str) -> ModelState:
        return replace(state, hardware=hardware.read(self._app_name, deployment)) if state.state == "ready" else state


def deployments_of(app_name: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what Serve's controller tells of an application's deployments, by their names.

    Each is a `DeploymentDetails` of Serve's REST API. `serve.status()` asks for the same, but
    validates every setting as well and pickles the request routers' classes, which takes a tenth
    of a second of the CPU. Raises KeyError if there is no such application.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        raise KeyError(app_name)
    deployments: Mapping[str, Mapping[str, Any]] = client.get_serve_details()["applications"][app_name]["deployments"]
    return deployments


def _state(details: Mapping[str, Any]) -> ModelState:
    replicas = Counter(replica["state"] for replica in details["replicas"])
    running = replicas["RUNNING"]
    if running:
        return ModelState("ready", running)
    # Serve replaces a replica that died, so only one that could not start means failure.
    if details["status_trigger"] == "REPLICA_STARTUP_FAILED":
        return ModelState("failed", 0, reason_of(details["message"]))
    return ModelState("starting" if replicas.total() - replicas["STOPPING"] else "asleep", 0)


def reason_of(message: str) -> str:
    """Return the exception that ended a start, from Serve's message, without its traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] or "Refused" in line.split(":")[0]]
    return (errors or lines or ["the replica did not start"])[-1][:500]
