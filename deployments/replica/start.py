"""Says in a replica's log what it loads while it starts: the Ray dashboard shows that log."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deployments.settings import Settings
from deployments.telemetry import logs

logger = logging.getLogger(logs.SERVE)


@contextmanager
def starting(model: str, models: Settings) -> Iterator[None]:
    """Log that the block loads ``models``, the files of the model of this API name, and how long.

    The folder of LoRAs is left out: it may be a URL with a password, and is not read yet.
    """
    logs.name_origins()
    start = time.monotonic()
    files = models.model_dump(mode="json", exclude={"loras"}, exclude_none=True)
    logger.info("%s is loading its models: %s", model, ", ".join(f"{name}={value}" for name, value in files.items()))
    try:
        yield
    except Exception as error:
        logger.error("%s cannot load its models: %s", model, error)
        raise
    logger.info("%s has loaded its models in %.1f s", model, time.monotonic() - start)
