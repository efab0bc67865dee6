"""Marks the results of jobs: what is said of each, and of which files it was made."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapImage, SwapVideo
from serve.pipelines.result import Result
from serve.provenance.marking import Marking
from serve.provenance.signing import Source
from serve.provenance.statement import Kind, Statement
from serve.provenance.xmp import Properties


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


def kind_of(request: PipelineRequest) -> Kind:
    """Return whether a model makes all of the result; a video that is extended keeps its frames."""
    return "generated" if isinstance(request, GenerateVideo) and not request.extend else "edited"


class ResultMarks:
    """Marks the result of one request."""

    def __init__(self, marking: Marking, request: PipelineRequest) -> None:
        self._marking = marking
        self._request = request
        self._sources = sources_of(request)
        self._properties: tuple[Properties, ...] = ()

    async def look(self) -> None:
        """Look at the sources before any work begins.

        Raises RequestRefused for a source whose marks would be lost.
        """
        self._properties = await self._marking.look(self._sources)

    async def put_on(self, result: Result, *, models: Sequence[str], request_id: str) -> Result:
        """Return the result with its marks."""
        statement = Statement(
            kind=kind_of(self._request),
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
