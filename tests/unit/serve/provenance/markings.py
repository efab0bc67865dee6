"""Started markings, and what readers say of the files that they mark."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import c2pa

from serve.media.images import encode_image
from serve.media.spool import Media, open_media
from serve.provenance.manifest import c2pa_settings
from serve.provenance.marking import Marking
from serve.provenance.reading import read_manifest
from serve.provenance_settings import ProvenanceSettings
from tests.unit.serve.provenance.results import (
    PICTURE,
)

Made = dict[str, tuple[str, Media]]
JPEG = encode_image(PICTURE, "image/jpeg")


@asynccontextmanager
async def marking_with(settings: ProvenanceSettings, *, demo: bool = True) -> AsyncIterator[Marking]:
    """Yield a marking that was started."""
    marking = Marking(settings, demo=demo, processes=2)
    try:
        await marking.start()
        yield marking
    finally:
        marking.close()


def report_of(media: Media, media_type: str) -> dict[str, Any]:
    """Return what c2pa's own reader says of a file."""
    context = c2pa.Context.from_dict(c2pa_settings())
    with open_media(media) as file:
        reader = c2pa.Reader(media_type, file, context=context)
        report: dict[str, Any] = json.loads(reader.json())
    return report


def assertions_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return the assertions of the active manifest by their labels."""
    active = report["manifests"][report["active_manifest"]]
    return {assertion["label"]: assertion["data"] for assertion in active["assertions"]}


def state_of(media: Media) -> str | None:
    """Return the state of the manifest of a file."""
    manifest = read_manifest(media, c2pa_settings())
    return None if manifest is None else str(manifest["state"])
