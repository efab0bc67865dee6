"""Log lines about requests that end in a problem, in the ingress and in Serve's proxy."""

import logging

from starlette.types import Scope

from serve.http.reports.route_templates import job_id_of, template_of
from serve.problems import Problem

logger = logging.getLogger("ray.serve")

CLIENT_LEFT = 499
"""The status of a client that closed its connection. From here on, details are all our own."""
MAX_NAMES, MAX_NAME = 5, 40
"""How many names a line has at most, and how much of each."""


def client_left() -> Problem:
    """Return the problem of a client that closed its connection: it is only logged."""
    return Problem(CLIENT_LEFT, "client-left", "the client left")


def log_problem(problem: Problem, scope: Scope, request_id: str) -> None:
    """Log a request that ends in a problem; at WARNING if the service is at fault.

    The detail of a problem that the caller has made may quote what was sent: a prompt, a picture, a
    file's name or a key in the wrong place. The log then has only its type and whose fault it was.
    """
    level = logging.WARNING if problem.status >= 500 else logging.INFO
    why = problem.detail if problem.status >= CLIENT_LEFT else _without_values(problem)
    logger.log(level, "%d %s: %s (request id %s)", problem.status, call_of(scope), one_line(why), request_id)


def _without_values(problem: Problem) -> str:
    """Return the type of a problem, and the names of the first fields, headers and parameters."""
    names = dict.fromkeys(error.field[:MAX_NAME] for error in problem.errors)
    shown = ", ".join(f"`{name}`" for name in list(names)[:MAX_NAMES])
    return f"{problem.slug} in {shown}" if shown else problem.slug


def call_of(scope: Scope) -> str:
    """Return the method and the route of a request for a log line, with the id of a job."""
    template = template_of(scope)
    return f"{one_line(scope['method'])} {template.replace('{id}', job_id_of(scope) or '{id}')}"


def one_line(text: str) -> str:
    """Return ``text`` without control characters, with which a caller could forge log lines."""
    return "".join(character if character.isprintable() else "?" for character in text)
