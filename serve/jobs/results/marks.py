"""Marks the results of jobs: what is said about each, and of which files it was made."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from serve.media.spool import Media
from serve.pipelines.errors import ModelUnavailable
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo
from serve.pipelines.result import Result
from serve.provenance.marking import Marking, MarksNotRead
from serve.provenance.signing import Source
from serve.provenance.statement import Kind, Label, Statement
from serve.provenance.xmp import Properties

RETRY_AFTER_S = 10
"""Seconds after which a caller whose source could not be looked at may send it again."""


def sources_of(request: PipelineRequest) -> dict[str, Source]:
    """Return the files of which the result of a request is made, by their fields.

    Images of faces are not among them: a manifest would bind somebody's portrait to the result.
    """
    if isinstance(request, SwapImage | SwapVideo):
        return {"source": Source(media=request.source, parent=True)}
    if isinstance(request, GenerateVideo):
        parents = {} if request.source is None else {"source": Source(media=request.source, parent=True)}
        frames = {"image": request.image, "last_image": request.last_image}
        return parents | {field: Source(media=data, parent=False) for field, data in frames.items() if data is not None}
    return {}


def kind_of(request: PipelineRequest, result: Result) -> Kind:
    """Return what the models did: a video that is extended keeps its frames.

    A film in which no face was replaced is unchanged, whatever was asked for.
    """
    if isinstance(request, GenerateVideo):
        return "edited" if request.extend else "generated"
    return "unchanged" if result.swap is not None and not result.swap.swapped else "edited"


class ResultMarks:
    """Marks the result of one request."""

    def __init__(self, marking: Marking, request: PipelineRequest) -> None:
        self._marking = marking
        self._request = request
        self._sources = sources_of(request)
        self._properties: tuple[Properties, ...] = ()
        self._preview_label: Label | None = None

    async def look(self) -> None:
        """Look at the sources before any work begins.

        Raises RequestRefused for a source whose marks would be lost, and ModelUnavailable if it
        cannot be known now whether they would be.
        """
        try:
            self._properties = await self._marking.look(self._sources)
        except MarksNotRead as error:
            raise ModelUnavailable(f"{error}; try again", RETRY_AFTER_S) from error

    async def describe(
        self, media: Media, media_type: str, *, models: Sequence[str], request_id: str
    ) -> tuple[Media, tuple[str, ...]]:
        """Return a picture of a result that is still being made, with its metadata, and its marks.

        It is not signed. All previews have the number of the first one in the label of GB
        45438-2025: there can be one each second, and the log has a line for each number.
        """
        kind: Kind = "generated" if isinstance(self._request, GenerateVideo) and not self._request.extend else "edited"
        statement = Statement(kind=kind, models=tuple(models), request_id=request_id, made_at=datetime.now(UTC))
        if self._preview_label is None:
            self._preview_label = await self._marking.label_of(media, statement, what="previews")
        return await self._marking.describe(
            media, media_type, statement, label=self._preview_label, properties=self._properties
        )

    async def put_on(self, result: Result, *, models: Sequence[str], request_id: str) -> Result:
        """Return the result with its marks."""
        statement = Statement(
            kind=kind_of(self._request, result),
            models=tuple(models),
            request_id=request_id,
            made_at=datetime.now(UTC),
            seed=result.seed,
        )
        marked = await self._marking.mark(
            result.data,
            result.media_type,
            statement,
            sources=tuple(self._sources.values()),
            properties=self._properties,
        )
        return replace(result, data=marked.media, marks=(*marked.marks, *result.marks))
