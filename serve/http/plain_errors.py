"""Middleware for Serve's proxy that turns the proxy's own failures into problems.

Where the ingress answers nothing, because its process was lost or because it cannot be reached,
Serve's proxy answers in plain text, or not at all, and uvicorn then sends a plain-text 500. An
answer of the ingress is passed on unchanged, since the ingress never answers an error in plain
text.
"""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Problem, replica_lost, unavailable

SERVE_PREFIX = "/-/"
"""Paths that Serve answers itself, in a form that its tools rely on."""
RETRY_AFTER_S = 1
"""Seconds after which another ingress process is likely to answer."""
STARTING_S = 5
"""Seconds after which it is worth asking a service again that is starting."""


class PlainErrors:
    """Raises a problem in place of a plain-text error, or of no answer, of the proxy itself.

    It must be the innermost of the proxy's layers, inside of one that answers problems.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVE_PREFIX):
            await self._app(scope, receive, send)
            return
        started = left = False
        refused: Message | None = None

        async def watched_receive() -> Message:
            nonlocal left
            message = await receive()
            left = left or message["type"] == "http.disconnect"
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started, refused
            if not started and _is_plain_error(message):
                refused = message
            started = True
            if refused is None:
                await send(message)

        await self._app(scope, watched_receive, watched_send)
        if refused is not None:
            raise _problem_of(refused)
        if not started and not left:
            raise _lost()


def _is_plain_error(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] < 400:
        return False
    return Headers(raw=list(map(tuple, message["headers"]))).get("content-type", "").startswith("text/plain")


def _lost() -> Problem:
    return replica_lost("the process that took this request was lost before it answered; send the request again", RETRY_AFTER_S)


def _problem_of(refused: Message) -> Problem:
    """Return the problem for an answer of the proxy's own. Its text names internals of Serve."""
    status: int = refused["status"]
    problems: dict[int, Callable[[], Problem]] = {
        # Not a 404, by which a caller that follows a job would believe that the job is gone.
        404: lambda: unavailable("no application runs at this path; a service that is starting has none yet", STARTING_S),
        408: lambda: Problem(504, "timeout", "the request reached the time limit of Serve's proxy"),
        500: _lost,
    }
    if status in problems:
        return problems[status]()
    headers = Headers(raw=list(map(tuple, refused["headers"])))
    retry_after = headers.get("retry-after", "")
    return unavailable(
        "the service cannot take the request now", float(retry_after) if retry_after.isdecimal() else RETRY_AFTER_S
    )
