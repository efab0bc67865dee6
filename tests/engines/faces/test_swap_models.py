"""Every published swap model: what its graph is given, what becomes of its result, which it is."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.alignment import ARCFACE, FFHQ, align, crop
from deployments.faces.models.files import check_files
from deployments.faces.swap import OnnxSwapper
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Face, Image, Reference
from tests.engines.faces import onnx_graphs

SETTINGS = FaceSettings(device="cpu", threads=1)
LANDMARKS = np.array([[155, 160], [225, 165], [190, 205], [160, 240], [220, 245]], np.float32)
LENGTH = 20.0
"""The length that a recogniser gave the embedding."""

# The published files: the first eye of the template as a share of the crop, mean and spread of the
# normalisation, and whether the result is normalised too.
HALF, NONE = ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)
MODELS: dict[str, dict[str, Any]] = {
    "inswapper_128": {"size": 128, "eye": (0.36167656, 0.40387734), "norm": NONE},
    "inswapper_128_fp16": {"size": 128, "eye": (0.36167656, 0.40387734), "norm": NONE, "kind": TensorProto.FLOAT16},
    "hyperswap_1a_256": {"size": 256, "eye": (0.36167656, 0.40387734), "norm": HALF, "signed": True, "mask": True},
    "hyperswap_1c_256": {
        "size": 256, "eye": (0.36167656, 0.40387734), "norm": HALF, "signed": True, "mask": True, "kind": TensorProto.FLOAT16
    },
    "ghost_2_256": {"size": 256, "eye": (0.35473214, 0.45658929), "norm": HALF, "signed": True},
    "simswap_256": {"size": 256, "eye": (0.35473214, 0.45658929), "norm": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))},
    "simswap_unofficial_512": {"size": 512, "eye": (0.35473214, 0.45658929), "norm": NONE},
    "hififace_unofficial_256": {"size": 256, "eye": (0.36562865, 0.46733799), "norm": HALF, "signed": True},
    "blendswap_256": {"size": 256, "eye": (0.37691676, 0.46864664), "norm": NONE, "source": (3, 112, 112)},
    "uniface_256": {"size": 256, "eye": (0.37691676, 0.46864664), "norm": HALF, "signed": True, "source": (3, 256, 256)},
}  # fmt: skip


def write(path: Path, name: str, **changes: Any) -> Path:
    """Write a graph with the signature of the file ``name``, and its converter beside it."""
    facts = MODELS[name]
    family = name.split("_")[0]
    if family in ("ghost", "simswap", "hififace"):
        onnx_graphs.converter(path / f"crossface_{family}.onnx")
    constants: dict[str, Any] = {"buff2fs": np.eye(512, dtype=np.float32)[::-1].copy()} if family == "inswapper" else {}
    shape = {"size": facts["size"], "source": facts.get("source", (512,)), "mask": facts.get("mask", False)}
    return onnx_graphs.swap_model(
        path / f"{name}.onnx", **shape, kind=facts.get("kind", TensorProto.FLOAT), **changes, **constants
    )


def scene() -> Image:
    noise = np.random.default_rng(0).integers(40, 215, (40, 40, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (400, 400), interpolation=cv2.INTER_CUBIC))


def embedding() -> Any:
    values = np.random.default_rng(1).random(512).astype(np.float32)
    return values / np.linalg.norm(values)


def face() -> Face:
    return Face(np.array([130, 120, 250, 280], np.float32), LANDMARKS, 0.9, embedding(), LENGTH)


def swap(path: Path) -> Any:
    swapper = OnnxSwapper(path, SETTINGS, use_cuda=False)
    (patch,) = swapper.swap([(scene(), face())], Reference(scene(), face()), lambda: None)
    return swapper, patch


@pytest.mark.parametrize("order", [False, True], ids=["target first", "source first"])
@pytest.mark.parametrize("name", MODELS)
def test_crops_are_normalised_as_the_model_was_trained(tmp_path: Path, name: str, order: bool) -> None:
    """The graph returns what it is given."""
    facts = MODELS[name]
    swapper, patch = swap(write(tmp_path, name, source_first=order))
    size, (mean, spread) = facts["size"], facts["norm"]
    assert swapper.name == name.split("_")[0]
    assert patch.pixels.shape == (size, size, 3)
    crop = cv2.warpAffine(scene(), patch.matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) / 255
    expected = (crop - mean) / spread
    if facts.get("signed"):
        expected = expected * spread + mean
    inner = (slice(size // 4, -size // 4),) * 2
    np.testing.assert_allclose(patch.pixels[inner], np.clip(expected[inner] * 255, 0, 255), atol=1.5)


@pytest.mark.parametrize("name", MODELS)
def test_faces_are_aligned_to_the_models_template(tmp_path: Path, name: str) -> None:
    """Landmarks that are the template itself, scaled and moved, come out on the template."""
    facts = MODELS[name]
    swapper, _ = swap(write(tmp_path, name))
    size = facts["size"]
    at = swapper.model.template / size
    np.testing.assert_allclose(at[0], facts["eye"], atol=1e-5)
    found = Face(face().box, np.asarray(at * 120 + [130, 120], np.float32), 0.9, embedding(), LENGTH)
    (patch,) = swapper.swap([(scene(), found)], Reference(scene(), face()), lambda: None)
    np.testing.assert_allclose(patch.matrix @ [*found.landmarks[4], 1], at[4] * size, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_learns_whose_face_to_make_as_published(tmp_path: Path, name: str) -> None:
    """The graph returns the mean of its source as a grey."""
    facts = MODELS[name]
    family = name.split("_")[0]
    _, patch = swap(write(tmp_path, name, result="source"))
    converted = 3 * embedding()[::-1] * LENGTH + np.float32(0.001)
    means = {
        "blendswap": crop(scene(), align(LANDMARKS, ARCFACE), 112).mean() / 255,
        "uniface": crop(scene(), align(LANDMARKS, FFHQ / 2), 256).mean() / 255,
        "inswapper": embedding().mean(),
        "hyperswap": embedding().mean(),
        "ghost": converted.mean(),
        "simswap": (converted / np.linalg.norm(converted)).mean(),
        "hififace": (converted / np.linalg.norm(converted)).mean(),
    }
    mean, spread = facts["norm"]
    value = means[family] * np.array(spread) + mean if facts.get("signed") else np.full(3, means[family])
    np.testing.assert_allclose(patch.pixels[5, 5], np.clip(value * 255, 0, 255), atol=1.5)


@pytest.mark.parametrize(
    ("name", "converters", "setting", "expected"),
    [
        ("ghost_3_256", ("ghost",), "auto", "ghost"),
        ("simswap_256", ("simswap",), "auto", "simswap"),
        ("hififace_unofficial_256", ("hififace",), "auto", "hififace"),
        ("mine", ("ghost",), "ghost", "ghost"),
        ("hyperswap_1b_256", (), "auto", "hyperswap"),
        ("mine", ("ghost",), "auto", None),
        ("mine", (), "inswapper", None),
        ("ghost_1_256", (), "auto", None),
    ],
)
def test_files_of_one_signature_are_told_apart_by_name_or_setting(
    tmp_path: Path, name: str, converters: tuple[str, ...], setting: Any, expected: str | None
) -> None:
    for converter in converters:
        onnx_graphs.converter(tmp_path / f"crossface_{converter}.onnx")
    path = onnx_graphs.swap_model(tmp_path / f"{name}.onnx", 256)
    models = FaceModels(analysis=tmp_path, swapper=path, swapper_model=setting)
    if expected is not None:
        assert OnnxSwapper(path, SETTINGS, use_cuda=False, models=models).name == expected
        return
    message = {
        ("mine", "auto"): "may be .*ghost, simswap, hififace.*set `swapper_model`",
        ("mine", "inswapper"): "not those of inswapper",
        ("ghost_1_256", "auto"): r"crossface_ghost\.onnx: no such file; .*embedding_converter",
    }[name, setting]
    with pytest.raises(CheckpointRefused, match=message):
        OnnxSwapper(path, SETTINGS, use_cuda=False, models=models)


def test_what_the_file_holds_counts_more_than_its_name(tmp_path: Path) -> None:
    path = onnx_graphs.swap_model(tmp_path / "inswapper_128.onnx", 256, mask=True)
    assert OnnxSwapper(path, SETTINGS, use_cuda=False).name == "hyperswap"


def test_the_name_of_the_converter_tells_what_a_renamed_file_is(tmp_path: Path) -> None:
    converter = onnx_graphs.converter(tmp_path / "crossface_simswap.onnx")
    path = onnx_graphs.swap_model(tmp_path / "mine.onnx", 256)
    models = FaceModels(analysis=tmp_path, swapper=path, embedding_converter=converter)
    assert OnnxSwapper(path, SETTINGS, use_cuda=False, models=models).name == "simswap"


@pytest.mark.parametrize("name", ["hyperswap_1a_256", "uniface_256", "simswap_256"])
def test_a_boost_tiles_models_of_256_pixels_too(tmp_path: Path, name: str) -> None:
    settings = SETTINGS.model_copy(update={"pixel_boost": 512})
    swapper = OnnxSwapper(write(tmp_path, name), settings, use_cuda=False)
    (patch,) = swapper.swap([(scene(), face())], Reference(scene(), face()), lambda: None)
    assert patch.pixels.shape == (512, 512, 3)
    assert patch.mask.shape == (512, 512)


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_check_knows_every_file(tmp_path: Path, name: str, order: bool) -> None:
    path = write(tmp_path, name, source_first=order)
    reports = [report for report in check_files(tmp_path, {}) if report.path is not None]
    assert path.name in [report.path.name for report in reports if report.path]
    assert [report.faults for report in reports] == [()] * len(reports)
    # A swap model of any kind is enough; inswapper need not be there too.
    assert not [r for r in check_files(tmp_path, {}) if r.faults and r.signature.setting == "models.faces.swapper"]


def test_models_check_names_a_missing_converter(tmp_path: Path) -> None:
    onnx_graphs.swap_model(tmp_path / "ghost_1_256.onnx", 256)
    (report,) = [report for report in check_files(tmp_path, {}) if report.path is not None]
    assert "needs crossface_ghost.onnx beside it" in report.faults[0]
