"""Log lines of replicas: each says for which request and job it was written.

Serve's logger writes them, as JSON if `logging_config` says so (docs/operations.md). Serve's own
filters know the request of a call, but not in threads, nor in what goes on after the call.
"""

import logging

from deployments.errors import RequestRefused
from deployments.telemetry.origin import current_origin

SERVE = "ray.serve"
"""The name of Serve's logger, which has its handlers and formats."""
PACKAGES = ("deployments", "serve")
"""The packages whose loggers are named after their modules."""
FAILED = "Request failed."
"""The message with which Serve logs whatever a call of a replica raises, with its traceback."""


def name_origins() -> None:
    """Name the request and the job in all lines of this process, from now on.

    Lines of our own modules go where Serve's go; they would otherwise miss its format. Serve's line
    about a call that failed is a short one if the caller's request was at fault.
    """
    serve = logging.getLogger(SERVE)
    serve.addFilter(_excuse)
    serve.addFilter(_complete)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        if not any(isinstance(handler, _ToServe) for handler in logger.handlers):
            logger.addHandler(_ToServe())
        logger.setLevel(logging.DEBUG)  # Serve's logger decides
        logger.propagate = False


class _ToServe(logging.Handler):
    """Hands records to Serve's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record on, unless Serve's logger leaves out its level."""
        serve = logging.getLogger(SERVE)
        if serve.isEnabledFor(record.levelno):
            serve.handle(record)


def _excuse(record: logging.LogRecord) -> bool:
    """Make Serve's traceback of a refused request one line at INFO.

    A refusal is not a fault of the service, and its text may quote what was sent.
    """
    error = record.exc_info[1] if record.exc_info and record.msg == FAILED else None
    error = getattr(error, "cause", error)  # Ray wraps what comes from another replica
    if not isinstance(error, RequestRefused):
        return True
    record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    record.msg, record.args = "the request was refused: %s in `%s`", (type(error).__name__, error.field)
    record.exc_info = record.exc_text = None
    return logging.getLogger(SERVE).isEnabledFor(logging.INFO)


def _complete(record: logging.LogRecord) -> bool:
    """Let every handler name the origin, whatever its own filters say about the request.

    The handlers are looked at for each record, because Serve replaces them when their settings
    change.
    """
    for handler in logging.getLogger(SERVE).handlers:
        if _name_origin not in handler.filters:
            handler.addFilter(_name_origin)
    return True


def _name_origin(record: logging.LogRecord) -> bool:
    origin = current_origin()
    if origin.request_id:
        record.request_id = origin.request_id
    if origin.job_id:
        record.ryla_job_id = origin.job_id  # Ray's own `job_id` is that of the application's driver
    return True
