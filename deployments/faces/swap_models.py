"""The published swap models: what each takes and returns, and which one a file is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.alignment import ARCFACE, FFHQ, FRONTAL, INSWAPPER, MTCNN, Landmarks
from deployments.faces.models.graph import inputs_of, shape_of

Shape = tuple[int | None, ...]
Identity = Literal["mapped", "embedding", "converted", "converted and scaled", "face"]
"""How a model learns whose face to make.

By insightface's embedding, multiplied by a matrix in the file (``mapped``) or as it is
(``embedding``); by the embedding of another recogniser, into which a second graph converts it, as
that graph returns it (``converted``) or with length 1 (``converted and scaled``); or by an aligned
picture of the face (``face``).
"""
_EMBEDDING: Shape = (512,)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class SwapModel:
    """A published model."""

    name: str
    """The value of `X-Face-Engine`, and the start of the names of its files."""
    size: int
    """The side of the crops that it takes and returns, in pixels."""
    template: Landmarks
    """The landmarks of a crop, in pixels."""
    identity: Identity
    source: Shape
    """The shape of the input that tells whose face to make, without the batch."""
    outputs: int = 1
    """The number of outputs, the first of which is the new face."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Pixels in 0..1 become (pixels - mean) / spread."""
    signed: bool = False
    """Whether the result is in the same normalised range; else it is in 0..1."""
    sharp: bool = False
    """Whether its crops are pasted with insightface's narrow edge instead of a soft one."""
    source_template: Landmarks | None = None
    """The landmarks of the picture of the face, in pixels, if the model takes one."""

    @property
    def converter(self) -> str | None:
        """The published name of the graph that converts embeddings for the model, if it has one."""
        return f"crossface_{self.name}.onnx" if self.identity.startswith("converted") else None


_FRONTAL_256 = FRONTAL * 256 / 112

SWAP_MODELS = (
    SwapModel("inswapper", 128, template=INSWAPPER, identity="mapped", source=_EMBEDDING, sharp=True),
    SwapModel(
        "hyperswap",
        256,
        template=INSWAPPER * 2,
        identity="embedding",
        source=_EMBEDDING,
        outputs=2,
        mean=_HALF,
        spread=_HALF,
        signed=True,
    ),
    SwapModel(
        "ghost", 256, template=_FRONTAL_256, identity="converted", source=_EMBEDDING, mean=_HALF, spread=_HALF, signed=True
    ),
    SwapModel(
        "simswap",
        256,
        template=_FRONTAL_256,
        identity="converted and scaled",
        source=_EMBEDDING,
        mean=(0.485, 0.456, 0.406),
        spread=(0.229, 0.224, 0.225),
    ),
    SwapModel("simswap", 512, template=_FRONTAL_256 * 2, identity="converted and scaled", source=_EMBEDDING),
    SwapModel(
        "hififace",
        256,
        template=MTCNN / 2,
        identity="converted and scaled",
        source=_EMBEDDING,
        mean=_HALF,
        spread=_HALF,
        signed=True,
    ),
    SwapModel("blendswap", 256, template=FFHQ / 2, identity="face", source=(3, 112, 112), source_template=ARCFACE),
    SwapModel(
        "uniface",
        256,
        template=FFHQ / 2,
        identity="face",
        source=(3, 256, 256),
        mean=_HALF,
        spread=_HALF,
        signed=True,
        source_template=FFHQ / 2,
    ),
)


def model_of(path: Path, graph: onnx.ModelProto, *, named: str = "auto", converter: Path | None = None) -> SwapModel:
    """Return the model that a file holds.

    The shapes of its inputs and outputs decide. Ghost, SimSwap of 256 pixels and HifiFace have the
    same: between them the setting (``named``), the file's name or the name of the converter
    decides. Raises CheckpointRefused for another model, and if it stays open which one it is.
    """
    shapes = [shape_of(value) for value in inputs_of(graph)]
    possible = [model for model in SWAP_MODELS if _fits(model, shapes)]
    if not possible:
        raise CheckpointRefused(
            f"{path}: inputs of shapes {_texts(shapes)}; inswapper takes [n, 3, 128, 128] and [n, 512], and other swap models "
            "an image of 256 or 512 pixels and an embedding or a face"
        )
    if named != "auto":
        possible = [model for model in possible if model.name == named]
        if not possible:
            raise CheckpointRefused(f"{path}: inputs of shapes {_texts(shapes)} are not those of {named} (`swapper_model`)")
    if len({model.outputs for model in possible}) > 1 and len(graph.graph.output) > 1:
        possible = [model for model in possible if model.outputs == len(graph.graph.output)] or possible
    names = [path.name] + ([] if converter is None else [converter.name.removeprefix("crossface_")])
    for name in names:
        if len(possible) > 1:
            possible = [model for model in possible if name.lower().startswith(model.name)] or possible
    if len(possible) > 1:
        choices = ", ".join(model.name for model in possible)
        raise CheckpointRefused(
            f"{path}: may be {choices}, whose inputs have the same shapes; set `swapper_model` to one of them"
        )
    return possible[0]


def target_of(graph: onnx.ModelProto, model: SwapModel) -> onnx.ValueInfoProto:
    """Return the input of ``graph`` that takes the crops.

    Exports order their inputs differently.
    """
    values = inputs_of(graph)
    named = [value for value in values if value.name == "target"]
    return (named or [value for value in values if (shape_of(value) or ())[1:] == _target(model)])[0]


def _target(model: SwapModel) -> Shape:
    return (3, model.size, model.size)


def _fits(model: SwapModel, shapes: list[Shape | None]) -> bool:
    return sorted(((shape or ())[1:] for shape in shapes), key=str) == sorted([_target(model), model.source], key=str)


def _texts(shapes: list[Shape | None]) -> str:
    texts = ("unknown" if s is None else f"[{', '.join('?' if side is None else str(side) for side in s)}]" for s in shapes)
    return " and ".join(texts)
