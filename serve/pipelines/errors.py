"""The errors that a pipeline adds to those that the deployments raise."""

from collections.abc import Iterator
from contextlib import contextmanager

from deployments.errors import RequestRefused
from serve.media.errors import MediaError, MediaTooLarge


class MediaOverLimit(RequestRefused):
    """A media file that was sent is larger than the limits allow."""


class ModelUnavailable(Exception):
    """A model cannot take a request now. ``retry_after_s`` says when to try again."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class MediaBusy(ModelUnavailable):
    """The places or the memory for decoding are in use by other requests for too long."""


def qualify(error: RequestRefused, part: str) -> RequestRefused:
    """Return ``error`` with a detail that begins with ``part``, such as "image 2 of 3"."""
    return type(error)(error.field, f"{part}: {error.detail}")


@contextmanager
def blame(field: str, part: str | None = None) -> Iterator[None]:
    """Turn a MediaError of the block into a RequestRefused or MediaOverLimit that names ``field``.

    ``part`` is the place of the file in an array, such as "image 2 of 3".
    """
    try:
        yield
    except MediaError as e:
        error = MediaOverLimit(field, str(e)) if isinstance(e, MediaTooLarge) else RequestRefused(field, str(e))
        raise (error if part is None else qualify(error, part)) from None
