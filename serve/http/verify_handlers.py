"""Handles `/verify`: what marks a file carries, for programs and, as a page, for people."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.http.bodies import read_body
from serve.http.callers.caller import caller_of
from serve.http.callers.quotas import Quotas
from serve.http.jobs.store_problems import store_problems
from serve.http.pages import verify_page
from serve.http.protocol.connection import run_while_connected
from serve.pipelines.errors import blame
from serve.pipelines.fields import read_media_field
from serve.problems import REQUIRED, invalid, unavailable
from serve.provenance.verifier import Verifier, VerifierBusy

FIELD = "file"
"""The field in which the file is sent."""
MAX_SECONDS = 600.0
"""Seconds within which a file must have been sent and verified."""
QUOTA = "verify "
"""What the name of a caller begins with in the quota, which is not that of jobs."""


class VerifyHandlers:
    """The handlers, one method for each route."""

    def __init__(self, verifier: Verifier, quotas: Quotas) -> None:
        self._verifier = verifier
        self._quotas = quotas
        self._page = verify_page()

    async def page(self, _: Request) -> Response:
        """Return the page on which a file can be chosen."""
        return self._page.response()

    async def verify(self, request: Request) -> Response:
        """Return the report on a file."""
        with store_problems():
            async with self._quotas.counted(QUOTA + caller_of(request)) as headers:
                fields = await read_body(request, form=True)
                if fields.get(FIELD) is None:
                    raise invalid(FIELD, REQUIRED)
                try:
                    media = read_media_field(fields[FIELD])
                except ValueError as error:
                    raise invalid(FIELD, str(error)) from None
                fields.clear()
                with blame(FIELD):
                    try:
                        report = await run_while_connected(request, self._verifier.verify(media), MAX_SECONDS)
                    except VerifierBusy:
                        raise unavailable("other files are being verified", retry_after_s=5) from None
        return JSONResponse(report, headers={**headers, "Cache-Control": "no-store"})
