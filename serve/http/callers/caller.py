"""Who sends a request: whose jobs it sees, and whose quota it uses."""

from starlette.requests import Request


def caller_of(request: Request) -> str:
    """Return the name of the caller's key, or the caller's address if no keys are configured."""
    name: str | None = getattr(request.state, "caller", None)
    return name or (request.client.host if request.client else "")
