"""What is said of a result: that a machine made it, with what, and of what."""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Literal

SOFTWARE = "ryla-serve"
VERSION = version(SOFTWARE)

_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{_TYPES}trainedAlgorithmicMedia"
"""IPTC's digital source type of media that a trained model made."""
COMPOSITE = f"{_TYPES}compositeWithTrainedAlgorithmicMedia"
"""That of media into which a trained model has put something."""

Kind = Literal["generated", "edited", "unchanged"]
"""`generated`: a model made all of it. `edited`: a model changed what the caller sent. `unchanged`:
a model was asked to change what the caller sent, and found nothing to change."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is said of one result.

    ``models`` are the API names of the models that made it. ``seed`` is None where no video was
    generated. Prompts and pictures are never part of a statement.
    """

    kind: Kind
    models: tuple[str, ...]
    request_id: str
    made_at: datetime
    seed: int | None = None

    @property
    def source_type(self) -> str | None:
        """IPTC's digital source type, a URL; None for what no model has made or changed."""
        return {"generated": GENERATED, "edited": COMPOSITE, "unchanged": None}[self.kind]


@dataclass(frozen=True, kw_only=True)
class Label:
    """The fields of GB 45438-2025 that are known of a result: its provider and its number."""

    producer: str
    number: str
