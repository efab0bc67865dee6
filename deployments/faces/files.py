"""Verifies the model files of FaceSwapper before a GPU waits for them: there, of the published signature, and with the right bytes."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from deployments.errors import CheckpointRefused
from deployments.faces.onnx import read_model

Shape = tuple[int | None, ...]
"""None: any number."""


@dataclass(frozen=True)
class Signature:
    """A published graph: the names its file goes by, the setting that takes it, and what goes in and comes out, in order.

    ``names``: those of its inputs, then of its outputs, where they are the same in every copy.
    """

    what: str
    files: tuple[str, ...]
    setting: str
    required: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    names: tuple[str, ...] = ()
    constants: tuple[Shape, ...] = ()


_FACE: Shape = (None, 3, 512, 512)
PUBLISHED = (
    Signature(
        "SCRFD, detection",
        ("det_10g.onnx", "det_2.5g.onnx", "det_500m.onnx"),
        "faces.analysis (its folder)",
        True,
        ((None, 3, None, None),),
        ((None, 1),) * 3 + ((None, 4),) * 3 + ((None, 10),) * 3,
    ),
    Signature(
        "ArcFace, recognition",
        ("w600k_r50.onnx", "w600k_mbf.onnx"),
        "faces.analysis (its folder)",
        True,
        ((None, 3, 112, 112),),
        ((None, 512),),
    ),
    Signature(
        "inswapper, swap",
        ("inswapper_128.onnx", "inswapper_128_fp16.onnx"),
        "faces.swapper",
        True,
        ((None, 3, 128, 128), (None, 512)),
        ((None, 3, 128, 128),),
        ("target", "source", "output"),
        ((512, 512),),
    ),
    Signature("GFPGAN 1.4, restoration", ("GFPGANv1.4.onnx", "gfpgan_1.4.onnx"), "faces.gfpgan", False, (_FACE,), (_FACE,)),
    Signature("CodeFormer, restoration", ("codeformer.onnx",), "faces.codeformer", False, (_FACE, (None,)), (_FACE,)),
    Signature(
        "XSeg, occlusion",
        ("dfl_xseg.onnx", "xseg_1.onnx", "xseg_2.onnx", "xseg_3.onnx", "face_occluder.onnx"),
        "faces.occlusion",
        False,
        ((None, 256, 256, 3),),
        ((None, 256, 256, 1),),
    ),
    Signature(
        "BiSeNet, face parsing",
        ("bisenet_resnet_34.onnx", "bisenet_resnet_18.onnx", "face_parser.onnx"),
        "faces.occlusion",
        False,
        (_FACE,),
        ((None, 19, 512, 512),),
    ),
)


@dataclass(frozen=True)
class Report:
    """What became of one kind of model: its file (None: not there), and what is wrong with it."""

    signature: Signature
    path: Path | None
    faults: tuple[str, ...]


def check_files(folder: Path, checksums: Mapping[str, str]) -> Iterator[Report]:
    """Looks for each published model below ``folder``; ``checksums``: file name -> SHA-256 in hex. Raises CheckpointRefused."""
    if not folder.is_dir():
        raise CheckpointRefused(f"{folder}: no such folder")
    there = sorted(folder.rglob("*.onnx"))
    for signature in PUBLISHED:
        names = {name.lower() for name in signature.files}
        paths = [path for path in there if path.name.lower() in names]
        for path in paths:
            yield Report(signature, path, (*_wrong_bytes(path, checksums), *_wrong_graph(path, signature)))
        if not paths:
            promised = signature.required or any(name.lower() in names for name in checksums)
            yield Report(signature, None, (f"not there; one of {', '.join(signature.files)}",) if promised else ())


def read_checksums(path: Path) -> dict[str, str]:
    """File name -> SHA-256, from what ``sha256sum`` writes; raises CheckpointRefused."""
    found = {}
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise CheckpointRefused(f"{path}: no text; it must be what `sha256sum` writes") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if parts is None:
            raise CheckpointRefused(
                f"{path}, line {number}: not what `sha256sum` writes: a checksum, two spaces, a file's name"
            )
        found[Path(parts[2]).name] = parts[1].lower()
    return found


def _wrong_bytes(path: Path, checksums: Mapping[str, str]) -> Iterator[str]:
    wanted = checksums.get(path.name)
    if wanted is None:
        if checksums:
            yield "not in the file of checksums"
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        yield f"SHA-256 is {found[:12]}..., expected {wanted[:12]}...: another version, or damaged; fetch it again"


def _wrong_graph(path: Path, signature: Signature) -> Iterator[str]:
    try:
        model = read_model(path)
    except CheckpointRefused as e:
        yield str(e).removeprefix(f"{path}: ")
        return
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = [*model.graph.output]
    yield from _wrong_shapes("input", inputs, signature.inputs)
    # A restorer's first output is the picture; some exports give inner ones as well, which nobody reads.
    yield from _wrong_shapes("output", outputs[:1] if signature.outputs == (_FACE,) else outputs, signature.outputs)
    names = tuple(value.name for value in (*inputs, *outputs))
    if signature.names and names != signature.names:
        yield f"its inputs and outputs are called {', '.join(names)}; expected {', '.join(signature.names)}"
    yield from _missing_constants(model, signature)


def _wrong_shapes(kind: str, values: list[ValueInfoProto], wanted: tuple[Shape, ...]) -> Iterator[str]:
    if len(values) != len(wanted):
        yield f"{len(values)} {kind}s, expected {len(wanted)}"
        return
    for value, shape in zip(values, wanted, strict=True):
        if not value.type.tensor_type.HasField("shape"):
            continue  # published detectors do not say what comes out
        found = tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
        fits = len(found) == len(shape) and all(None in (a, b) or a == b for a, b in zip(found, shape, strict=True))
        if not fits:
            yield f"{kind} `{value.name}` is {_text(found)}, expected {_text(shape)}"


def _missing_constants(model: ModelProto, signature: Signature) -> Iterator[str]:
    shapes = {tuple(tensor.dims) for tensor in model.graph.initializer}
    for shape in signature.constants:
        if shape not in shapes:
            yield f"no constant of shape {_text(shape)}"


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
