"""The errors that a pipeline adds to those that the deployments raise."""

from deployments.errors import RequestRefused


class MediaOverLimit(RequestRefused):
    """A media file that was sent is larger than the limits allow."""


class ModelUnavailable(Exception):
    """A model cannot take a request now. ``retry_after_s`` says when to try again."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


def qualify(error: RequestRefused, part: str) -> RequestRefused:
    """Return ``error`` with a detail that begins with ``part``, such as "image 2 of 3"."""
    return type(error)(error.field, f"{part}: {error.detail}")
