"""Log lines about requests that end in a problem, in the ingress and in Serve's proxy."""

import logging

from starlette.types import Scope

from serve.problems import Problem

logger = logging.getLogger("ray.serve")


def client_left() -> Problem:
    """Return the problem of a client that closed its connection: it is only logged."""
    return Problem(499, "client-left", "the client left")


def log_problem(problem: Problem, scope: Scope, request_id: str) -> None:
    """Log a request that ends in a problem; at WARNING if the service is at fault."""
    level = logging.WARNING if problem.status >= 500 else logging.INFO
    logger.log(level, "%d %s: %s (request id %s)", problem.status, call_of(scope), one_line(problem.detail), request_id)


def call_of(scope: Scope) -> str:
    """Return the method and path of a request for a log line."""
    return f"{scope['method']} {one_line(scope['path'][:200])}"


def one_line(text: str) -> str:
    """Return ``text`` without control characters, with which a caller could forge log lines."""
    return "".join(character if character.isprintable() else "?" for character in text)
