"""ONNX graphs with the architectures and signatures of the published face models.

Their weights are random, because time does not depend on the values. Each graph is built from the
layer table of its paper or reference code. ``PUBLISHED`` holds the sizes of the published files
(bytes divided by four), and ``write`` asserts that each graph is within 2 % of them.

- det_10g: SCRFD-10GF (Guo et al., "Sample and Computation Redistribution for Efficient Face
  Detection", 2021): ResNet blocks of 56, 88, 88 and 224 channels, PAFPN of 56, heads of 80.
- w600k_r50: ArcFace's IResNet-50 (Deng et al., 2019).
- inswapper_128: an encoder and decoder of up to 1024 channels around six residual blocks, whose
  convolutions are normalised and then scaled and shifted by the identity (AdaIN, as in Chen et al.,
  "SimSwap", 2020).
- GFPGANv1.4: a U-Net whose features modulate a StyleGAN2 decoder of 512 pixels (Wang et al., 2021,
  the "clean" version).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from deployments.faces.compositing.alignment import ARCFACE

PUBLISHED = {
    # parameters and multiplications per pass, in millions
    "det_10g": (4.23, 13_300.0),
    "w600k_r50": (43.6, 6_330.0),
    "inswapper_128": (138.6, 0.0),
    "GFPGANv1.4": (85.1, 0.0),
}
"""The multiplications of det_10g are the paper's 9.98 G at 640x480, scaled to 640x640.

Those of inswapper and GFPGAN are not published.
"""
TOLERANCE = 0.02
FACE_SIDE = 160
"""The width of the face that the detector finds, in pixels of its 640 pixels wide input."""


@dataclass(frozen=True)
class Tensor:
    """A value in the graph, ``channels`` x ``side`` x ``side``."""

    name: str
    channels: int
    side: int


class Builder:
    """Adds nodes with random weights, and counts parameters and multiplications."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0
        self.parameters = 0
        self.multiplications = 0

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        self._count += 1
        output = output or f"t{self._count}"
        self._nodes.append(helper.make_node(kind, [*inputs], [output], **attributes))
        return output

    def constant(self, value: Any) -> str:
        """Add a constant that is not a weight, and return its name."""
        self._count += 1
        array = np.asarray(value)
        self._constants.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, f"c{self._count}")
        )
        return f"c{self._count}"

    def named(self, name: str, value: Any) -> None:
        """Add a weight that no node uses."""
        self.parameters += value.size
        self._constants.append(numpy_helper.from_array(value.astype(np.float32), name))

    def split(self, x: str, sizes: str) -> tuple[str, str]:
        """Split the channels in two, and return the names of the parts."""
        self._count += 1
        parts = f"t{self._count}a", f"t{self._count}b"
        self._nodes.append(helper.make_node("Split", [x, sizes], [*parts], axis=1))
        return parts

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """Add random weights that preserve the variance of a signal, and return their name."""
        fan = int(np.prod(shape[1:])) or 1
        self.parameters += int(np.prod(shape))
        return self.constant(self._rng.normal(0, gain * (2 / fan) ** 0.5, shape).astype(np.float32))

    def conv(self, x: Tensor, channels: int, kernel: int = 3, stride: int = 1, act: str = "", bias: float = 0.0) -> Tensor:
        """Add a convolution with bias, padded to keep the size, and an activation."""
        side = -(-x.side // stride)
        self.multiplications += channels * x.channels * kernel**2 * side**2
        self.parameters += channels
        offsets = self.constant(np.full(channels, bias, np.float32))
        pads = [kernel // 2] * 4
        name = self.node(
            "Conv", x.name, self.weight(channels, x.channels, kernel, kernel), offsets, strides=[stride] * 2, pads=pads
        )
        return self.act(Tensor(name, channels, side), act)

    def act(self, x: Tensor, kind: str) -> Tensor:
        """Add an activation (Relu, LeakyRelu, PRelu), or nothing for an empty ``kind``."""
        if kind == "PRelu":
            return Tensor(self.node(kind, x.name, self.weight(x.channels, 1, 1)), x.channels, x.side)
        attributes: dict[str, Any] = {"alpha": 0.2} if kind == "LeakyRelu" else {}
        return Tensor(self.node(kind, x.name, **attributes), x.channels, x.side) if kind else x

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        """Add two tensors."""
        return Tensor(self.node("Add", one.name, other.name), one.channels, one.side)

    def resize(self, x: Tensor, side: int) -> Tensor:
        """Resize bilinearly."""
        scales = self.constant(np.array([1, 1, side / x.side, side / x.side], np.float32))
        return Tensor(self.node("Resize", x.name, "", scales, mode="linear"), x.channels, side)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """Add a fully connected layer from ``[n, inputs]`` to ``[n, outputs]``."""
        self.multiplications += inputs * outputs
        self.parameters += outputs
        return self.node("Gemm", x, self.weight(outputs, inputs), self.constant(np.zeros(outputs, np.float32)), transB=1)

    def save(self, folder: Path, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> Path:
        """Write the graph, after checking that it is as large as the published one."""
        input_infos, output_infos = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
            for values in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, self._name, input_infos, output_infos, self._constants)
        path = folder / f"{self._name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        for count, published in zip((self.parameters, self.multiplications), PUBLISHED[self._name], strict=True):
            assert not published or abs(count / 1e6 / published - 1) < TOLERANCE, (self._name, count, published)
        return path


def write(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Write all graphs; return the file, parameters and multiplications per pass of each by name.

    A pass of the detector takes an image of 640x640.
    """
    pack = folder / "buffalo_l"
    pack.mkdir(parents=True, exist_ok=True)
    written = {}
    for build, place in ((det_10g, pack), (w600k_r50, pack), (inswapper_128, folder), (gfpgan, folder)):
        path, builder = build(place)
        written[path.stem] = (path, builder.parameters, builder.multiplications)
    return written


def _residual(b: Builder, x: Tensor, channels: int, *, stride: int, act: str = "Relu") -> Tensor:
    inner = b.conv(
        b.conv(x, channels, stride=1 if act == "PRelu" else stride, act=act), channels, stride=stride if act == "PRelu" else 1
    )
    around = x if x.channels == channels and stride == 1 else b.conv(x, channels, kernel=1, stride=stride)
    return b.act(b.add(inner, around), "" if act == "PRelu" else act)


def det_10g(folder: Path) -> tuple[Path, Builder]:
    """Write SCRFD-10GF with key points.

    Whatever it computes, it finds one face in the middle of a wide image; see ``_detections``.
    """
    b = Builder("det_10g")
    x = Tensor("input.1", 3, 640)
    for channels, stride in ((28, 2), (28, 1), (56, 1)):
        x = b.conv(x, channels, stride=stride, act="Relu")
    x = Tensor(b.node("MaxPool", x.name, kernel_shape=[2, 2], strides=[2, 2]), 56, 160)
    levels = []
    for blocks, channels, stride in ((3, 56, 1), (4, 88, 2), (2, 88, 2), (3, 224, 2)):
        for i in range(blocks):
            x = _residual(b, x, channels, stride=stride if i == 0 else 1)
        levels.append(x)
    lateral = [b.conv(level, 56, 1) for level in levels[1:]]
    two = b.constant(np.array([1, 1, 2, 2], np.float32))
    for i in (1, 0):
        larger = Tensor(b.node("Resize", lateral[i + 1].name, "", two, mode="nearest"), 56, lateral[i].side)
        lateral[i] = b.add(lateral[i], larger)
    outs = [b.conv(level, 56) for level in lateral]
    for i in (0, 1):
        outs[i + 1] = b.add(outs[i + 1], b.conv(outs[i], 56, stride=2))
    outs = [outs[0], *(b.conv(level, 56) for level in outs[1:])]
    tables: dict[int, list[str]] = {1: [], 4: [], 10: []}
    for level, stride, (score, box, points) in zip(
        outs, (8, 16, 32), (("448", "451", "454"), ("471", "474", "477"), ("494", "497", "500")), strict=True
    ):
        y = level
        for _ in range(3):
            y = b.conv(y, 80, act="Relu")
        for name, values in ((score, 1), (box, 4), (points, 10)):
            head = b.conv(y, 2 * values)
            flat = b.node(
                "Reshape", b.node("Transpose", head.name, perm=[0, 2, 3, 1]), b.constant(np.array([-1, values], np.int64))
            )
            vanishing = b.node("Mul", flat, b.constant(np.array(1e-12, np.float32)))
            detections = b.node("Add", vanishing, b.constant(_detections(stride, values)))
            b.node("Sigmoid" if values == 1 else "Identity", detections, output=name)
            tables[values].append(name)
    names: dict[str, list[Any]] = {name: ["k", values] for values, table in tables.items() for name in table}
    return b.save(folder, {"input.1": [1, 3, "h", "w"]}, names), b


def _detections(stride: int, values: int) -> npt.NDArray[np.float32]:
    """Return the output of SCRFD's head for one face of ``FACE_SIDE`` pixels, before the sigmoid.

    The face is at one anchor of stride 16. The result is scores, distances to the sides of the box,
    or landmarks relative to the anchor, the last two in strides.
    """
    side = 640 // stride
    table = np.full((side, side, 2, values), -20.0 if values == 1 else 0.0, np.float32)
    if stride == 16:
        half = FACE_SIDE / 2 / stride
        points = ((ARCFACE / 112 - 0.5) * FACE_SIDE / stride).ravel()
        table[side * 11 // 40, side // 2, 0] = {1: np.array([4.0]), 4: np.full(4, half), 10: points}[values]
    return table.reshape(-1, values)


def w600k_r50(folder: Path) -> tuple[Path, Builder]:
    """Write IResNet-50."""
    b = Builder("w600k_r50")
    x = b.conv(Tensor("input.1", 3, 112), 64, act="PRelu")
    for blocks, channels in ((3, 64), (4, 128), (14, 256), (3, 512)):
        for i in range(blocks):
            x = _residual(b, x, channels, stride=2 if i == 0 else 1, act="PRelu")
    flat = b.node("Flatten", x.name)
    b.node("Identity", b.linear(flat, 512 * 49, 512), output="683")
    return b.save(folder, {"input.1": ["n", 3, 112, 112]}, {"683": ["n", 512]}), b


def inswapper_128(folder: Path) -> tuple[Path, Builder]:
    """Write the swapper with its identity map."""
    b = Builder("inswapper_128")
    small = b.constant(np.array(1e-8, np.float32))

    def normalised(x: Tensor) -> Tensor:
        centred = b.node("Sub", x.name, b.node("ReduceMean", x.name, axes=[2, 3]))
        spread = b.node("Sqrt", b.node("Add", b.node("ReduceMean", b.node("Mul", centred, centred), axes=[2, 3]), small))
        return Tensor(b.node("Div", centred, spread), x.channels, x.side)

    def styled(x: Tensor) -> Tensor:
        shape = b.constant(np.array([-1, x.channels, 1, 1], np.int64))
        scale, shift = (b.node("Reshape", b.linear("source", 512, x.channels), shape) for _ in range(2))
        scaled = b.node("Mul", normalised(b.conv(x, x.channels)).name, scale)
        return Tensor(b.node("Add", scaled, shift), x.channels, x.side)

    x = b.conv(Tensor("target", 3, 128), 128, 7, act="LeakyRelu")
    for channels in (256, 512, 1024):
        x = b.conv(x, channels, stride=2, act="LeakyRelu")
    for _ in range(6):
        x = b.add(styled(b.act(styled(x), "Relu")), x)
    for channels in (512, 256, 128):
        x = b.conv(b.resize(x, x.side * 2), channels, act="LeakyRelu")
    picture = b.node("Tanh", b.conv(x, 3, 7).name)
    half = b.constant(np.array(0.5, np.float32))
    b.node("Add", b.node("Mul", picture, half), half, output="output")
    b.named("buff2fs", np.linalg.qr(np.random.default_rng(1).normal(size=(512, 512)))[0])
    inputs = {"target": [1, 3, 128, 128], "source": [1, 512]}
    return b.save(folder, inputs, {"output": [1, 3, 128, 128]}), b


def gfpgan(folder: Path) -> tuple[Path, Builder]:
    """Write GFPGAN 1.4."""
    b = Builder("GFPGANv1.4")
    unet = {4: 256, 8: 256, 16: 256, 32: 256, 64: 256, 128: 128, 256: 64, 512: 32}
    decoder = {side: 2 * channels for side, channels in unet.items()}
    small = b.constant(np.array(1e-8, np.float32))

    def scaled_block(x: Tensor, channels: int, side: int) -> Tensor:
        y = b.resize(b.conv(x, x.channels, act="LeakyRelu"), side)
        return b.add(b.conv(y, channels, act="LeakyRelu"), b.conv(b.resize(x, side), channels, 1))

    x = b.conv(Tensor("input", 3, 512), unet[512], 1, act="LeakyRelu")
    skips = {}
    for side in (256, 128, 64, 32, 16, 8, 4):
        x = scaled_block(x, unet[side], side)
        skips[side] = x
    x = b.conv(x, unet[4], act="LeakyRelu")
    latents = b.node(
        "Reshape", b.linear(b.node("Flatten", x.name), unet[4] * 16, 16 * 512), b.constant(np.array([16, 512], np.int64))
    )

    def latent(i: int) -> str:
        start, end, axis = (b.constant(np.array([v], np.int64)) for v in (i, i + 1, 0))
        return b.node("Slice", latents, start, end, axis)

    conditions = {}
    for side in (8, 16, 32, 64, 128, 256, 512):
        x = scaled_block(b.add(x, skips[side // 2]), unet[side], side)
        conditions[side] = [b.conv(b.conv(x, unet[side], act="LeakyRelu"), decoder[side] // 2) for _ in range(2)]

    def modulated(x: Tensor, channels: int, i: int, kernel: int = 3, demodulate: bool = True) -> Tensor:
        style = b.node("Reshape", b.linear(latent(i), 512, x.channels), b.constant(np.array([1, x.channels, 1, 1], np.int64)))
        weight = b.node("Mul", b.weight(channels, x.channels, kernel, kernel), style)
        if demodulate:
            norm = b.node("Sqrt", b.node("Add", b.node("ReduceSumSquare", weight, axes=[1, 2, 3]), small))
            weight = b.node("Div", weight, norm)
        b.multiplications += channels * x.channels * kernel**2 * x.side**2
        name = b.node("Conv", x.name, weight, pads=[kernel // 2] * 4)
        return Tensor(name, channels, x.side)

    b.parameters += 512 * 16
    x = b.act(modulated(Tensor(b.constant(np.random.default_rng(2).normal(size=(1, 512, 4, 4))), 512, 4), 512, 0), "LeakyRelu")
    picture = modulated(x, 3, 1, kernel=1, demodulate=False)
    for step, side in enumerate((8, 16, 32, 64, 128, 256, 512)):
        x = b.act(modulated(b.resize(x, side), decoder[side], 2 * step + 1), "LeakyRelu")
        half = decoder[side] // 2
        scale, shift = conditions[side]
        cut = b.constant(np.array([half, half], np.int64))
        kept, changed = b.split(x.name, cut)
        mixed = b.node("Add", b.node("Mul", changed, scale.name), shift.name)
        x = Tensor(b.node("Concat", kept, mixed, axis=1), decoder[side], side)
        x = b.act(modulated(x, decoder[side], 2 * step + 2), "LeakyRelu")
        last = min(2 * step + 3, 15)
        picture = b.add(modulated(x, 3, last, kernel=1, demodulate=False), b.resize(picture, side))
    b.node("Tanh", picture.name, output="output")
    return b.save(folder, {"input": [1, 3, 512, 512]}, {"output": [1, 3, 512, 512]}), b
