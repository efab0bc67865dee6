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
from deployments.faces.models.graph import inputs_of, read_model, shape_of

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
    """The names of the inputs and outputs, in any order, if every published copy has the same."""
    constants: tuple[Shape, ...] = ()
    """Shapes of constants that the graph must contain."""
    first_output: bool = False
    """Whether only the first output is used; exports may have others."""
    needs: str | None = None
    """The name of another file that the model does not run without."""


def _image(size: int) -> Shape:
    return (None, 3, size, size)


_FACE, _ONE = _image(512), (None, 512)
_SWAPPER = "models.faces.swapper"


def _restorer(model: str, *files: str, size: int = 512, setting: str = "models.faces.restorer") -> Signature:
    return Signature(
        model=f"{model}, restoration",
        files=files,
        setting=setting,
        required=False,
        inputs=(_image(size),),
        outputs=(_image(size),),
        first_output=True,
    )


def _swapper(model: str, *files: str, size: int = 256, source: Shape = _ONE, first_output: bool = False) -> Signature:
    return Signature(
        model=f"{model}, swap",
        files=files,
        setting=_SWAPPER,
        required=False,
        inputs=(_image(size), source),
        outputs=(_image(size),),
        first_output=first_output,
        needs=f"crossface_{model.split()[0].lower()}.onnx" if model.split()[0] in ("Ghost", "SimSwap", "HifiFace") else None,
    )


def _converter(model: str) -> Signature:
    return Signature(
        model=f"crossface for {model}, embeddings",
        files=(f"crossface_{model.lower()}.onnx",),
        setting="models.faces.embedding_converter",
        required=False,
        inputs=(_ONE,),
        outputs=(_ONE,),
    )


PUBLISHED = (
    Signature(
        model="SCRFD, detection",
        files=("det_10g.onnx", "det_2.5g.onnx", "det_500m.onnx"),
        setting="models.faces.analysis (its folder)",
        required=True,
        inputs=((None, 3, None, None),),
        outputs=((None, 1),) * 3 + ((None, 4),) * 3 + ((None, 10),) * 3,
    ),
    Signature(
        model="ArcFace, recognition",
        files=("w600k_r50.onnx", "w600k_mbf.onnx"),
        setting="models.faces.analysis (its folder)",
        required=True,
        inputs=(_image(112),),
        outputs=(_ONE,),
    ),
    Signature(
        model="inswapper, swap",
        files=("inswapper_128.onnx", "inswapper_128_fp16.onnx"),
        setting=_SWAPPER,
        required=True,
        inputs=(_image(128), _ONE),
        outputs=(_image(128),),
        names=("target", "source", "output"),
        constants=((512, 512),),
    ),
    _swapper("hyperswap", "hyperswap_1a_256.onnx", "hyperswap_1b_256.onnx", "hyperswap_1c_256.onnx", first_output=True),
    _swapper("Ghost", "ghost_1_256.onnx", "ghost_2_256.onnx", "ghost_3_256.onnx"),
    _swapper("SimSwap", "simswap_256.onnx"),
    _swapper("SimSwap 512", "simswap_unofficial_512.onnx", "simswap_512.onnx", size=512),
    _swapper("HifiFace", "hififace_unofficial_256.onnx", "hififace_256.onnx"),
    _swapper("BlendSwap", "blendswap_256.onnx", source=_image(112)),
    _swapper("UniFace", "uniface_256.onnx", source=_image(256)),
    *(_converter(model) for model in ("Ghost", "SimSwap", "HifiFace")),
    _restorer("GFPGAN 1.4", "GFPGANv1.4.onnx", "gfpgan_1.4.onnx", setting="models.faces.gfpgan"),
    Signature(
        model="CodeFormer, restoration",
        files=("codeformer.onnx",),
        setting="models.faces.codeformer",
        required=False,
        inputs=(_FACE, (None,)),
        outputs=(_FACE,),
        first_output=True,
    ),
    *(_restorer(f"GPEN {size}", f"gpen_bfr_{size}.onnx", size=size) for size in (256, 512, 1024, 2048)),
    _restorer("RestoreFormer++", "restoreformer_plus_plus.onnx"),
    Signature(
        model="XSeg, occlusion",
        files=("dfl_xseg.onnx", "xseg_1.onnx", "xseg_2.onnx", "xseg_3.onnx", "face_occluder.onnx"),
        setting="models.faces.occlusion",
        required=False,
        inputs=((None, 256, 256, 3),),
        outputs=((None, 256, 256, 1),),
    ),
    Signature(
        model="BiSeNet, face parsing",
        files=("bisenet_resnet_34.onnx", "bisenet_resnet_18.onnx", "face_parser.onnx"),
        setting="models.faces.occlusion",
        required=False,
        inputs=(_FACE,),
        outputs=((None, 19, 512, 512),),
        first_output=True,
    ),
)


_SWAPPERS = {name.lower() for signature in PUBLISHED if signature.setting == _SWAPPER for name in signature.files}


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
            replaced = signature.setting == _SWAPPER and any(path.name.lower() in _SWAPPERS for path in found)
            expected = (signature.required and not replaced) or any(name.lower() in names for name in checksums)
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
    inputs, outputs = inputs_of(model), [*model.graph.output]
    # Exports order the inputs differently; the engine finds each by its shape or name.
    yield from _shape_faults("input", inputs, signature.inputs, ordered=False)
    yield from _shape_faults("output", outputs[:1] if signature.first_output else outputs, signature.outputs)
    names = tuple(value.name for value in (*inputs, *outputs))
    if signature.names and set(names) != set(signature.names):
        yield f"inputs and outputs are named {', '.join(names)}; expected {', '.join(signature.names)}"
    yield from _constant_faults(model, signature)
    if signature.needs is not None and not path.with_name(signature.needs).is_file():
        yield f"needs {signature.needs} beside it, which converts embeddings, or the setting `embedding_converter`"


def _shape_faults(
    kind: str, values: list[ValueInfoProto], expected: tuple[Shape, ...], *, ordered: bool = True
) -> Iterator[str]:
    if len(values) != len(expected):
        yield f"{len(values)} {kind}s, expected {len(expected)}"
        return
    left = [*expected]
    unfit = []
    for i, value in enumerate(values):
        candidates = [expected[i]] if ordered else left
        shape = next((shape for shape in candidates if _fits(shape_of(value), shape)), None)
        if shape is None:
            unfit.append(value)
        else:
            left.remove(shape)
    for value, shape in zip(unfit, left, strict=True):
        yield f"{kind} `{value.name}` has shape {_text(shape_of(value) or ())}, expected {_text(shape)}"


def _fits(found: Shape | None, expected: Shape) -> bool:
    if found is None:
        return True  # published detectors do not declare the shapes of their outputs
    if not found and expected == (None,):
        return True  # a single number may also be a scalar
    return len(found) == len(expected) and all(None in (a, b) or a == b for a, b in zip(found, expected, strict=True))


def _constant_faults(model: ModelProto, signature: Signature) -> Iterator[str]:
    shapes = {tuple(tensor.dims) for tensor in model.graph.initializer}
    for shape in signature.constants:
        if shape not in shapes:
            yield f"no constant of shape {_text(shape)}"


def _text(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
