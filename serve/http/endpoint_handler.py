"""Handles a POST to one of the endpoints: reads it, runs its pipeline, answers with the result."""

import asyncio
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve.config import AppConfig
from serve.http.admission import Admission
from serve.http.bodies import read_body
from serve.http.connection import run_while_connected
from serve.http.endpoints import Endpoint
from serve.http.negotiation import choose_media_type, parse_preferences, parse_request_timeout
from serve.http.problems import Problem, problem_of
from serve.http.responses import result_response
from serve.http.result_headers import Answer
from serve.http.schemas import Parsed
from serve.pipelines.attempts import run_attempts
from serve.pipelines.context import RequestContext, ignore_steps
from serve.pipelines.meter import Meter
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.requests import GenerateVideo
from serve.pipelines.result import Result


class EndpointHandler:
    """The handler of one endpoint."""

    def __init__(self, endpoint: Endpoint, *, config: AppConfig, pipelines: Pipelines, admission: Admission) -> None:
        self._endpoint = endpoint
        self._pipelines = pipelines
        self._admission = admission
        self._timeout_s = config.limits.request_timeout_s
        self._hardware = {model.name: config.deployment_of(model).hardware for model in endpoint.models}
        self._model = endpoint.models[0].name

    async def __call__(self, request: Request) -> Response:
        """Answer a request; raise a Problem if it cannot be answered with a result."""
        caller = _caller(request)
        self._admission.check(caller)
        start = time.monotonic()
        preferences = parse_preferences(request.headers.getlist("prefer"))
        _refuse_jobs(preferences, request)
        timeout_s = parse_request_timeout(request.headers.get("request-timeout"), self._timeout_s)
        media_type = choose_media_type(request.headers.get("accept"), self._endpoint.media_types)
        async with asyncio.timeout(timeout_s):  # a slow upload counts towards the request's time
            fields = await read_body(request, form=True)
        with self._admission.admit(caller):  # only now, so that a slow upload takes nobody's place
            meter = Meter(dict(self._hardware))

            async def work() -> tuple[Parsed, Result]:
                parsed = await self._parse(fields, strict=preferences.get("handling") == "strict")
                context = RequestContext(
                    seed=_seed(parsed),
                    media_type=media_type,
                    meter=meter,
                    observe=ignore_steps,
                    caller=caller,
                )
                return parsed, await self._run(parsed, context)

            parsed, result = await run_while_connected(
                request,
                work(),
                timeout_s,
                passed_s=time.monotonic() - start,
                advice=lambda: _advice(meter, self._model),
            )
            self._admission.note_duration(self._model, time.monotonic() - start)
        answer = Answer(
            result=result,
            endpoint=self._endpoint.name,
            meter=meter,
            ignored_fields=parsed.ignored,
            request_id=request.state.request_id,
        )
        return result_response(answer)

    async def _parse(self, fields: dict[str, Any], *, strict: bool) -> Parsed:
        parsed = await asyncio.to_thread(self._endpoint.schema.parse, fields, strict=strict)
        fields.clear()  # the base64 need not be held beside the bytes
        return parsed

    async def _run(self, parsed: Parsed, context: RequestContext) -> Result:
        """Run the pipeline. Its errors become problems that name the fields as the caller did."""
        try:
            return await run_attempts(
                lambda: self._endpoint.run(self._pipelines, parsed.request, context), context, self._endpoint.name
            )
        except Exception as error:
            problem = problem_of(error, retry_after_s=self._admission.last_duration(self._model, 10))
            if problem is None:
                raise
            raise problem.with_field_names(parsed.sent_as) from error


def _seed(parsed: Parsed) -> int:
    request = parsed.request
    if isinstance(request, GenerateVideo) and request.seed is not None:
        return request.seed
    return secrets.randbelow(2**32)


def _caller(request: Request) -> str:
    """Return the name of the caller's key, or the caller's address if no keys are configured."""
    name: str | None = getattr(request.state, "caller", None)
    return name or (request.client.host if request.client else "")


def _refuse_jobs(preferences: dict[str, str], request: Request) -> None:
    """Raise a 501 problem for features that do not exist yet, on which the caller may rely."""
    wanted = [f"Prefer: {name}" for name in ("respond-async", "wait") if name in preferences]
    wanted += ["Idempotency-Key"] if "idempotency-key" in request.headers else []
    if wanted:
        raise Problem(501, "not-implemented", f"`{wanted[0]}` is not supported yet; send the request without it and wait")


def _advice(meter: Meter, model: str) -> str:
    """Return how to avoid a timeout. A request that ``model`` has not begun is not too large."""
    if model in meter.begun:
        return "ask for fewer frames or steps"
    return "the model had not begun, because it still starts or its queue is long: start it ahead with POST /warm, or allow more time"
