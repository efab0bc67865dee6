"""Handles `/verify`: what marks a file carries, for programs and, as a page, for people."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.http.bodies import read_body
from serve.http.callers.admission import Admission
from serve.http.callers.caller import caller_of
from serve.http.callers.quotas import Quotas
from serve.http.jobs.store_problems import store_problems
from serve.http.pages import verify_page
from serve.http.protocol.connection import run_while_connected
from serve.media.spool import Media
from serve.pipelines.errors import MediaBusy, blame
from serve.pipelines.fair_queue import FairQueue
from serve.pipelines.fields import read_media_field
from serve.problems import REQUIRED, invalid, unavailable
from serve.provenance.verifier import Verifier

FIELD = "file"
"""The field in which the file is sent."""
MAX_SECONDS = 600.0
"""Seconds within which a file must have been sent and verified."""
MAX_WAIT_S = 10.0
"""Seconds for which a file waits for its turn."""
QUOTA = "verify "
"""What the name of a caller begins with in the quota, which is not that of jobs."""


class VerifyHandlers:
    """The handlers, one method for each route.

    ``concurrency`` files are read at a time; callers take turns, and none has more than half.
    """

    def __init__(self, verifier: Verifier, quotas: Quotas, admission: Admission, *, concurrency: int) -> None:
        self._verifier = verifier
        self._quotas = quotas
        self._admission = admission
        self._places = FairQueue.with_halves(concurrency, MAX_WAIT_S)
        self._page = verify_page()

    async def page(self, _: Request) -> Response:
        """Return the page on which a file can be chosen."""
        return self._page.response()

    async def verify(self, request: Request) -> Response:
        """Return the report on a file."""
        caller = caller_of(request)
        self._admission.check(caller)
        with store_problems():
            await self._quotas.count(QUOTA + caller, request)
            fields = await read_body(request, form=True)
            if fields.get(FIELD) is None:
                raise invalid(FIELD, REQUIRED)
            try:
                media = read_media_field(fields[FIELD])
            except ValueError as error:
                raise invalid(FIELD, str(error)) from None
            fields.clear()
            with self._admission.admit(caller):
                report = await run_while_connected(request, self._report(media, caller), MAX_SECONDS)
        return JSONResponse(report, headers={"Cache-Control": "no-store"})

    async def _report(self, media: Media, caller: str) -> dict[str, Any]:
        """Return the report on a file once it is its caller's turn."""
        try:
            async with self._places.place(caller):
                with blame(FIELD):
                    return await self._verifier.verify(media)
        except MediaBusy:
            raise unavailable("other files are being verified", retry_after_s=5) from None
