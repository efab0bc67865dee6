"""Checks the model files of FaceSwapper before a GPU is used.

Each file must exist, must have the published signature, and must match its checksum if one is
given.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from deployments.errors import CheckpointRefused
from deployments.faces.models.graph import read_model

Shape = tuple[int | None, ...]
"""The sides of a tensor; None stands for any number."""


@dataclass(frozen=True)
class Signature:
    """A published graph."""

    model: str
    """The model's name and its task."""
    files: tuple[str, ...]
    """The names under which the file is published."""
    setting: str
    """The setting that takes the file."""
    required: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    names: tuple[str, ...] = ()
    """The names of the inputs and then of the outputs, if every published copy has the same."""
    constants: tuple[Shape, ...] = ()
    """Shapes of constants that the graph must contain."""


_FACE: Shape = (None, 3, 512, 512)
PUBLISHED = (
    Signature(
        model="SCRFD, detection",
        files=("det_10g.onnx", "det_2.5g.onnx", "det_500m.onnx"),
        setting="faces.analysis (its folder)",
        required=True,
        inputs=((None, 3, None, None),),
        outputs=((None, 1),) * 3 + ((None, 4),) * 3 + ((None, 10),) * 3,
    ),
    Signature(
        model="ArcFace, recognition",
        files=("w600k_r50.onnx", "w600k_mbf.onnx"),
        setting="faces.analysis (its folder)",
        required=True,
        inputs=((None, 3, 112, 112),),
        outputs=((None, 512),),
    ),
    Signature(
        model="inswapper, swap",
        files=("inswapper_128.onnx", "inswapper_128_fp16.onnx"),
        setting="faces.swapper",
        required=True,
        inputs=((None, 3, 128, 128), (None, 512)),
        outputs=((None, 3, 128, 128),),
        names=("target", "source", "output"),
        constants=((512, 512),),
    ),
    Signature(
        model="GFPGAN 1.4, restoration",
        files=("GFPGANv1.4.onnx", "gfpgan_1.4.onnx"),
        setting="faces.gfpgan",
        required=False,
        inputs=(_FACE,),
        outputs=(_FACE,),
    ),
    Signature(
        model="CodeFormer, restoration",
        files=("codeformer.onnx",),
        setting="faces.codeformer",
        required=False,
        inputs=(_FACE, (None,)),
        outputs=(_FACE,),
    ),
    Signature(
        model="XSeg, occlusion",
        files=("dfl_xseg.onnx", "xseg_1.onnx", "xseg_2.onnx", "xseg_3.onnx", "face_occluder.onnx"),
        setting="faces.occlusion",
        required=False,
        inputs=((None, 256, 256, 3),),
        outputs=((None, 256, 256, 1),),
    ),
    Signature(
        model="BiSeNet, face parsing",
        files=("bisenet_resnet_34.onnx", "bisenet_resnet_18.onnx", "face_parser.onnx"),
        setting="faces.occlusion",
        required=False,
        inputs=(_FACE,),
        outputs=((None, 19, 512, 512),),
    ),
)


@dataclass(frozen=True)
class Report:
    """The result for one file, or for a model without a file."""

    signature: Signature
    path: Path | None
    """The file, or None if there is none."""
    faults: tuple[str, ...]
    """What is wrong; empty if the file is good, or missing and optional."""


def check_files(folder: Path, checksums: Mapping[str, str]) -> Iterator[Report]:
    """Yield a report for every published model and every file of it below ``folder``.

    ``checksums`` maps file names to SHA-256 in hex. Raises CheckpointRefused if there is no such
    folder.
    """
    if not folder.is_dir():
        raise CheckpointRefused(f"{folder}: no such folder")
    found = sorted(folder.rglob("*.onnx"))
    for signature in PUBLISHED:
        names = {name.lower() for name in signature.files}
        paths = [path for path in found if path.name.lower() in names]
        for path in paths:
            yield Report(signature, path, (*_checksum_faults(path, checksums), *_graph_faults(path, signature)))
        if not paths:
            expected = signature.required or any(name.lower() in names for name in checksums)
            yield Report(signature, None, (f"missing; one of {', '.join(signature.files)}",) if expected else ())


def read_checksums(path: Path) -> dict[str, str]:
    """Return SHA-256 in hex by file name, from the output of ``sha256sum``.

    Raises CheckpointRefused if a line has another format.
    """
    checksums = {}
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise CheckpointRefused(f"{path}: not a text file; it must be the output of `sha256sum`") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line)
        if parts is None:
            raise CheckpointRefused(
                f"{path}, line {number}: must be a line of `sha256sum`: a checksum, two spaces, a file name"
            )
        checksums[Path(parts[2]).name] = parts[1].lower()
    return checksums


def _checksum_faults(path: Path, checksums: Mapping[str, str]) -> Iterator[str]:
    expected = checksums.get(path.name)
    if expected is None:
        if checksums:
            yield "not listed in the checksum file"
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        yield f"SHA-256 is {found[:12]}..., expected {expected[:12]}...: another version, or damaged; download it again"


def _graph_faults(path: Path, signature: Signature) -> Iterator[str]:
    try:
        model = read_model(path)
    except CheckpointRefused as e:
        yield str(e).removeprefix(f"{path}: ")
        return
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    outputs = [*model.graph.output]
    yield from _shape_faults("input", inputs, signature.inputs)
    # A restorer's first output is the image; some exports also have inner outputs, which are not
    # used.
    yield from _shape_faults("output", outputs[:1] if signature.outputs == (_FACE,) else outputs, signature.outputs)
    names = tuple(value.name for value in (*inputs, *outputs))
    if signature.names and names != signature.names:
        yield f"inputs and outputs are named {', '.join(names)}; expected {', '.join(signature.names)}"
    yield from _constant_faults(model, signature)


def _shape_faults(kind: str, values: list[ValueInfoProto], expected: tuple[Shape, ...]) -> Iterator[str]:
    if len(values) != len(expected):
        yield f"{len(values)} {kind}s, expected {len(expected)}"
        return
    for value, shape in zip(values, expected, strict=True):
        if not value.type.tensor_type.HasField("shape"):
            continue  # published detectors do not declare the shapes of their outputs
        found = tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
        fits = len(found) == len(shape) and all(None in (a, b) or a == b for a, b in zip(found, shape, strict=True))
        if not fits:
            yield f"{kind} `{value.name}` has shape {_text(found)}, expected {_text(shape)}"


def _constant_faults(model: ModelProto, signature: Signature) -> Iterator[str]:
    shapes = {tuple(tensor.dims) for tensor in model.graph.initializer}
    for shape in signature.constants:
        if shape not in shapes:
            yield f"no constant of shape {_text(shape)}"


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
