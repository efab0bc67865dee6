"""Log lines of replicas: each says for which request and job it was written.

Serve's logger writes them, as JSON if `logging_config` says so (docs/operations.md). Serve's own
filters know the request of a call, but not in threads, nor in what goes on after the call.
"""

import logging

from deployments.telemetry.origin import current_origin

SERVE = "ray.serve"
"""The name of Serve's logger, which has its handlers and formats."""
PACKAGES = ("deployments", "serve")
"""The packages whose loggers are named after their modules."""


def name_origins() -> None:
    """Name the request and the job in all lines of this process, from now on.

    Lines of our own modules go where Serve's go; they would otherwise miss its format.
    """
    serve = logging.getLogger(SERVE)
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


def _complete(record: logging.LogRecord) -> bool:
    """Let every handler name the origin, whatever its own filters say of the request.

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
