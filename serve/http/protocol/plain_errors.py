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
ROUTES = "/-/routes"
"""Where the proxy lists the applications, as a JSON object."""
RETRY_AFTER_S = 1
"""Seconds after which another ingress process is likely to answer."""
STARTING_S = 5
"""Seconds after which to ask a service again that is starting."""


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
            if refused["status"] == 404 and not await self._runs_anything(scope):
                raise unavailable("the service is starting, and cannot take requests yet", STARTING_S)
            raise _problem_of(refused)
        if not started and not left:
            raise _lost()

    async def _runs_anything(self, scope: Scope) -> bool:
        """Return whether the proxy knows about an application, by its own list of them."""
        body = b""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal body
            body += message.get("body", b"")

        await self._app({**scope, "method": "GET", "path": ROUTES, "raw_path": ROUTES.encode(), "root_path": ""}, receive, send)
        return body.startswith(b"{") and body.strip() != b"{}"


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
        404: lambda: Problem(404, "not-found", "no application runs at this path"),
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
