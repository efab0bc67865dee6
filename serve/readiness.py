"""What state each model is in, as Serve sees it."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import DeploymentStatusOverview

from deployments import hardware

MODELS = {"wan26": "Wan26", "wan22-gguf": "Wan22GGUF", "face-swapper": "FaceSwapper"}
"""The API's name of each model -> its deployment."""

State = Literal["ready", "starting", "asleep", "failed"]


@dataclass(frozen=True)
class ModelState:
    """``reason`` says why a model failed, ``hardware`` what a ready one runs on and which of its weights are there."""

    state: State
    replicas: int
    reason: str | None = None
    hardware: str | None = None


class StateUnknown(Exception):
    """Serve's controller cannot be asked: it is away, or knows nothing of this application yet."""


class Readiness:
    """Asks Serve's controller, at most once a second, and waits for it at most ``timeout_s``: it may be away, with the head node."""

    def __init__(self, app_name: str, max_age_s: float = 1.0, timeout_s: float = 5.0) -> None:
        self._app_name = app_name
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._asking: asyncio.Future[dict[str, ModelState]] | None = None
        self._asked_at = float("-inf")

    async def of(self, model: str) -> ModelState:
        """The state of one model, by the API's name; raises StateUnknown."""
        return (await self.all())[model]

    async def all(self) -> dict[str, ModelState]:
        """The state of each model, by the API's name; raises StateUnknown."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at > self._max_age_s):
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), self._timeout_s)
        except (TimeoutError, KeyError, RayError, RayServeException) as e:
            raise StateUnknown from e

    def _ask(self) -> dict[str, ModelState]:
        try:
            deployments = serve.status().applications[self._app_name].deployments
            states = {name: _state(deployments[deployment]) for name, deployment in MODELS.items()}
            return {name: self._with_hardware(state, MODELS[name]) for name, state in states.items()}
        finally:
            self._asked_at = time.monotonic()

    def _with_hardware(self, state: ModelState, deployment: str) -> ModelState:
        return replace(state, hardware=hardware.read(self._app_name, deployment)) if state.state == "ready" else state


def _state(overview: DeploymentStatusOverview) -> ModelState:
    replicas = {str(getattr(state, "value", state)): count for state, count in overview.replica_states.items()}
    running = replicas.get("RUNNING", 0)
    if running:
        return ModelState("ready", running)
    # A replica that died is replaced and no reason to give up; one that could not start is.
    if overview.status_trigger.value == "REPLICA_STARTUP_FAILED":
        return ModelState("failed", 0, _reason(overview.message))
    return ModelState("starting" if sum(replicas.values()) - replicas.get("STOPPING", 0) else "asleep", 0)


def _reason(message: str) -> str:
    """The exception that ended a replica's start, without its trace."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] or "Refused" in line.split(":")[0]]
    return (errors or lines or ["the replica did not start"])[-1][:500]
