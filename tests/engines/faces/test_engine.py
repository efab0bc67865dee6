"""The face engines: the demo's on real photographs, production's on small graphs."""

import contextlib
import dataclasses
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from insightface.model_zoo.inswapper import INSwapper

from demo.face_models import face_models
from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.face_swapper import FaceSwapper
from deployments.faces.analysis import InsightFaceAnalyser, OpenCVAnalyser
from deployments.faces.compositing.alignment import ARCFACE, align, crop
from deployments.faces.compositing.paste import paste
from deployments.faces.engine import FaceEngine, build_face_engine
from deployments.faces.models.session import providers, require_device
from deployments.faces.occlusion import OcclusionMask
from deployments.faces.swap import OnnxSwapper
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Face, Image, Reference, SwapOptions
from serve.media.samples import group, portrait, stranger
from tests.engines.faces import onnx_graphs

BOX = (50.0, 40.0, 110.0, 120.0)
LANDMARKS = (ARCFACE - 56).astype(np.float32) * np.float32(0.6) + np.float32(80)


@pytest.fixture(scope="module")
def demo_engine() -> FaceEngine:
    return build_face_engine(FaceSettings(), face_models(), use_cuda=False)


@pytest.fixture(scope="module")
def analyser() -> OpenCVAnalyser:
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> FaceModels:
    folder = tmp_path_factory.mktemp("models")
    pack = folder / "buffalo_l"
    pack.mkdir()
    onnx_graphs.scrfd(pack / "det_10g.onnx", LANDMARKS, BOX)
    onnx_graphs.arcface(pack / "w600k_r50.onnx")
    return FaceModels(analysis=pack, swapper=onnx_graphs.inswapper(folder / "inswapper_128.onnx"))


SETTINGS = FaceSettings(detection_size=onnx_graphs.SCRFD_SIZE)


def never_cancelled() -> None:
    """Do nothing: these tests do not cancel the work."""


def identify(engine: FaceEngine, image: Image) -> Reference:
    return engine.identify([image], "face", never_cancelled)


def swap(engine: FaceEngine, frame: Image, reference: Reference, options: SwapOptions) -> tuple[Image, int]:
    """Return a frame with its largest face swapped, and the number of faces found."""
    (faces,) = engine.analyse([frame], never_cancelled)
    return engine.swap(frame[None], [faces[:1]], reference=reference, options=options, check=never_cancelled)[0], len(faces)


def picture() -> Image:
    return np.random.default_rng(2).integers(60, 200, (160, 160, 3), dtype=np.uint8)


def test_the_folded_detector_finds_the_six_faces_of_the_group_the_largest_first(analyser: OpenCVAnalyser) -> None:
    faces = analyser.faces([group()])[0]
    assert len(faces) == 6
    assert [f.area for f in faces] == sorted((f.area for f in faces), reverse=True)
    for face in faces:
        left, top, right, bottom = face.box
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        eyes, mouth = face.landmarks[:2], face.landmarks[3:]
        assert eyes[0][0] < eyes[1][0]
        assert eyes[:, 1].max() < mouth[:, 1].min()
        assert (face.landmarks > [left - 5, top - 5]).all()
        assert (face.landmarks < [right + 5, bottom + 5]).all()


def test_the_folded_recogniser_recognises_a_face_and_distinguishes_others(analyser: OpenCVAnalyser) -> None:
    everyone = [f.embedding for f in analyser.faces([group()])[0]]
    others = [a @ b for i, a in enumerate(everyone) for b in everyone[:i]]
    assert max(others) < 0.4
    person = analyser.faces([stranger()])[0][0].embedding
    mirrored = analyser.faces([np.ascontiguousarray(stranger()[:, ::-1])])[0][0].embedding
    assert person @ mirrored > 0.6


def test_a_swapped_face_is_nearer_to_the_reference_than_to_the_original(
    demo_engine: FaceEngine, analyser: OpenCVAnalyser
) -> None:
    people = group()
    boxes = [face.box.astype(int) for face in analyser.faces([people])[0] if face.box[1] > 60]

    def embedding(image: Image) -> Any:
        """Two of the people lean by 30 degrees, where the detector alone misplaces landmarks."""
        return demo_engine.analyse([image], never_cancelled)[0][0].embedding

    crops = [
        portrait(),
        *(people[top - 60 : bottom + 60, max(0, left - 60) : right + 60] for left, top, right, bottom in boxes),
    ]
    gains = []
    for i, target in enumerate(crops):
        for j, source in enumerate(crops):
            if i == j:
                continue
            reference = identify(demo_engine, source)
            before = embedding(target)
            result, found = swap(demo_engine, target, reference, SwapOptions())
            after = embedding(result)
            assert found >= 1
            gains.append(float(after @ reference.face.embedding - after @ before))
    assert len(gains) >= 12
    # Three of the thirty pairs miss it: the mask leaves more of the target's forehead and outline.
    assert sum(gain <= 0 for gain in gains) <= 3
    assert np.mean(gains) > 0.2


def test_the_field_of_an_image_without_a_face_is_named(demo_engine: FaceEngine) -> None:
    with pytest.raises(NoFaceFound) as none:
        identify(demo_engine, np.full((200, 200, 3), 128, np.uint8))
    assert none.value.field == "face"


def test_a_frame_without_a_face_is_returned_unchanged(demo_engine: FaceEngine) -> None:
    reference = identify(demo_engine, portrait())
    empty = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    result, found = swap(demo_engine, empty, reference, SwapOptions())
    assert found == 0
    np.testing.assert_array_equal(result, empty)


def test_read_only_arrays_are_not_written_to(demo_engine: FaceEngine) -> None:
    frame = stranger().copy()
    frame.flags.writeable = False
    before = frame.copy()
    result, _ = swap(demo_engine, frame, identify(demo_engine, portrait()), SwapOptions())
    np.testing.assert_array_equal(frame, before)
    assert not np.array_equal(result, before)


def test_production_analysis_reads_the_published_outputs(models: FaceModels) -> None:
    analyser = InsightFaceAnalyser(models.analysis, SETTINGS, use_cuda=False)
    ((face,),) = analyser.faces([picture()])
    np.testing.assert_allclose(face.box, BOX, atol=0.01)
    np.testing.assert_allclose(face.landmarks, LANDMARKS, atol=0.01)
    assert face.score == pytest.approx(0.9)
    assert face.embedding.shape == (512,)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    other = analyser.faces([255 - picture()])[0][0]
    assert face.embedding @ other.embedding < 0.9


def test_the_production_swap_is_insightfaces_with_the_identity_map_found_by_name(
    models: FaceModels, capsys: pytest.CaptureFixture[str]
) -> None:
    swapper = OnnxSwapper(models.swapper, SETTINGS, use_cuda=False)
    assert capsys.readouterr().out == ""
    frame = picture()
    embedding = np.random.default_rng(3).normal(size=512).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    face = Face(np.asarray(BOX, np.float32), LANDMARKS, 0.9, embedding)
    (patch,) = swapper.swap([(frame, face)], Reference(frame, face), never_cancelled)
    assert patch.pixels.shape == (128, 128, 3)
    # The graph inverts the aligned crop and adds the mean of the mapped identity.
    rng = np.random.default_rng(1)
    latent = embedding @ rng.normal(size=(512, 512)).astype(np.float32)
    grey = (latent / np.linalg.norm(latent)).mean()
    aligned = cv2.warpAffine(frame, patch.matrix, (128, 128))
    expected = np.clip(255 - aligned.astype(float) + 255 * grey, 0, 255)
    np.testing.assert_allclose(patch.pixels, expected, atol=1.5)


def insightface_swapper(path: Path, swapper: OnnxSwapper) -> Any:
    """Return insightface's class over the same graph, with the right identity map."""
    with contextlib.redirect_stdout(io.StringIO()):
        model = INSwapper(str(path), swapper._session)
    model.emap = swapper._identity_map
    return model


def test_a_batch_of_swaps_and_the_paste_match_insightface(analyser: OpenCVAnalyser, tmp_path: Path) -> None:
    path = onnx_graphs.inswapper(tmp_path / "inswapper_128.onnx", contrast=0.7)
    swapper = OnnxSwapper(path, SETTINGS, use_cuda=False)
    frame = cv2.resize(group(), (1920, 1080), interpolation=cv2.INTER_CUBIC)
    faces = analyser.faces([frame])[0]
    assert len(faces) == 6
    embedding = np.random.default_rng(3).normal(size=512).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    reference = Reference(frame, dataclasses.replace(faces[0], embedding=embedding))
    patches = swapper.swap([(frame, face) for face in faces], reference, never_cancelled)
    model, bgr = insightface_swapper(path, swapper), np.ascontiguousarray(frame[:, :, ::-1])
    for face, patch in zip(faces, patches, strict=True):
        target, source = SimpleNamespace(kps=face.landmarks), SimpleNamespace(normed_embedding=embedding)
        crop_theirs, matrix = model.get(bgr, target, source, paste_back=False)
        np.testing.assert_allclose(patch.matrix, matrix, atol=1e-3)
        np.testing.assert_allclose(patch.pixels.astype(int), crop_theirs[:, :, ::-1].astype(int), atol=1)
        whole = model.get(bgr, target, source, paste_back=True)[:, :, ::-1]
        ours = frame.copy()
        paste(ours, patch.pixels, matrix=patch.matrix, mask=patch.mask)
        left, top, right, bottom = face.box.astype(int)
        region = (slice(top, bottom), slice(left, right))
        error = np.mean((ours[region].astype(float) - whole[region]) ** 2)
        assert 10 * np.log10(255**2 / error) > 40
        assert 10 * np.log10(255**2 / np.mean((frame[region].astype(float) - whole[region]) ** 2)) < 30, "nothing was swapped"


def test_the_analysis_of_several_images_matches_insightface(models: FaceModels) -> None:
    ours = InsightFaceAnalyser(models.analysis, SETTINGS, use_cuda=False)
    pictures = [picture(), 255 - picture(), np.zeros((8, 8, 3), np.uint8)]
    found = ours.faces(pictures)
    assert [len(faces) for faces in found] == [1, 1, 0]
    for image, (face,) in zip(pictures[:2], found[:2], strict=True):
        (expected,) = ours._analysis.get(np.ascontiguousarray(image[:, :, ::-1]))
        np.testing.assert_allclose(face.box, expected.bbox, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, expected.kps, atol=1e-3)
        np.testing.assert_allclose(face.embedding, expected.normed_embedding, atol=1e-5)


@pytest.mark.parametrize("boost", [256, 512])
def test_pixel_boost_uses_every_pixel_of_a_larger_crop(tmp_path: Path, boost: int) -> None:
    """The graph works pixel by pixel, so splitting, swapping and joining must not change a crop."""
    path = onnx_graphs.inswapper(tmp_path / "inswapper_128.onnx", contrast=0.5)
    swapper = OnnxSwapper(path, SETTINGS.model_copy(update={"pixel_boost": boost}), use_cuda=False)
    frame = cv2.resize(picture(), (900, 900), interpolation=cv2.INTER_CUBIC)
    embedding = np.random.default_rng(3).normal(size=512).astype(np.float32)
    face = Face(
        np.asarray(BOX, np.float32), np.asarray(LANDMARKS * 900 / 160, np.float32), 0.9, embedding / np.linalg.norm(embedding)
    )
    (patch,) = swapper.swap([(frame, face)], Reference(frame, face), never_cancelled)
    assert patch.pixels.shape == (boost, boost, 3)
    np.testing.assert_allclose(patch.matrix, align(face.landmarks, (ARCFACE + np.array([8, 0])) * boost / 128))
    before = crop(frame, patch.matrix, boost).astype(float)
    inner = (slice(20, -20), slice(20, -20))
    ratio = np.polyfit(before[inner].ravel(), patch.pixels[inner].astype(float).ravel(), 1)
    np.testing.assert_allclose(patch.pixels[inner], np.polyval(ratio, before[inner]), atol=2)
    assert ratio[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["xseg", "parser"])
def test_pixels_that_hide_a_face_are_kept(models: FaceModels, tmp_path: Path, kind: str) -> None:
    """Both graphs classify the dark half of the image as not a face."""
    path = getattr(onnx_graphs, kind)(tmp_path / f"{kind}.onnx")
    frame = picture()
    frame[:, 80:] //= 4
    frame[:, :80] |= 128
    plain = build_face_engine(SETTINGS, models, use_cuda=False)
    careful = build_face_engine(SETTINGS, models.model_copy(update={"occlusion": path}), use_cuda=False)
    reference = identify(plain, 255 - frame)
    without, _ = swap(plain, frame, reference, SwapOptions())
    result, _ = swap(careful, frame, reference, SwapOptions())
    shown, hidden = (slice(70, 90), slice(58, 70)), (slice(70, 90), slice(90, 102))
    assert np.abs(without[hidden].astype(int) - frame[hidden]).mean() > 20
    assert np.abs(result[hidden].astype(int) - frame[hidden]).mean() < 1
    np.testing.assert_allclose(result[shown].astype(int), without[shown].astype(int), atol=6)
    with pytest.raises(CheckpointRefused, match="an occlusion model is"):
        OcclusionMask(models.swapper, SETTINGS, use_cuda=False)


def test_colours_are_matched_if_configured(models: FaceModels) -> None:
    frame = picture() // 2
    plain = build_face_engine(SETTINGS, models, use_cuda=False)
    matching = build_face_engine(SETTINGS.model_copy(update={"match_colours": True}), models, use_cuda=False)
    reference = identify(plain, 255 - frame)
    middle = (slice(70, 90), slice(70, 90))
    before = frame[middle].mean()
    off, on = (swap(engine, frame, reference, SwapOptions())[0][middle].mean() for engine in (plain, matching))
    assert abs(off - before) > 40
    assert abs(on - before) < 12


def test_threads_that_share_an_engine_get_the_same_results_as_alone(demo_engine: FaceEngine) -> None:
    """The images differ in size, and no thread may use the size that another one has set."""
    pictures = [group(), stranger(), cv2.resize(group(), None, fx=0.6, fy=0.6), portrait()]
    alone = [demo_engine.analyse([picture], never_cancelled)[0] for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        shared = [*threads.map(lambda i: demo_engine.analyse([pictures[i % 4]], never_cancelled)[0], range(16))]
    for i, faces in enumerate(shared):
        assert len(faces) == len(alone[i % 4])
        for one, other in zip(faces, alone[i % 4], strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
            np.testing.assert_array_equal(one.embedding, other.embedding)


def test_several_images_of_a_person_are_averaged(demo_engine: FaceEngine) -> None:
    pictures = [stranger(), np.ascontiguousarray(stranger()[:, ::-1])]
    one, other = (demo_engine.identify([picture], "face", never_cancelled).face.embedding for picture in pictures)
    reference = demo_engine.identify(pictures, "face", never_cancelled)
    mean = (one + other) / np.linalg.norm(one + other)
    np.testing.assert_allclose(reference.face.embedding, mean, atol=1e-6)
    assert min(mean @ one, mean @ other) > one @ other
    with pytest.raises(NoFaceFound, match="image 2 of 2"):
        demo_engine.identify([stranger(), np.zeros((99, 99, 3), np.uint8)], "face", never_cancelled)


def test_production_engine_swaps_and_restores(models: FaceModels, tmp_path: Path) -> None:
    white = onnx_graphs.restorer(tmp_path / "GFPGANv1.4.onnx", codeformer=False)
    frame = picture()
    plain = build_face_engine(SETTINGS, models, use_cuda=False)
    restoring = build_face_engine(SETTINGS, models.model_copy(update={"gfpgan": white}), use_cuda=False)
    reference = identify(plain, 255 - frame)
    assert (plain.name, plain.restorer(SwapOptions())) == ("inswapper", "none")
    assert restoring.restorer(SwapOptions()) == "gfpgan"
    assert restoring.restorer(SwapOptions(restore=False)) == "none"
    swapped, found = swap(plain, frame, reference, SwapOptions())
    assert found == 1
    assert np.abs(swapped.astype(int) - frame)[70:90, 70:90].mean() > 20
    centre = (slice(75, 85), slice(75, 85))
    full, _ = swap(restoring, frame, reference, SwapOptions())
    assert (full[centre] > 250).all()
    half, _ = swap(restoring, frame, reference, SwapOptions(visibility=0.5))
    np.testing.assert_allclose(half[centre], (swapped[centre].astype(int) + 255) / 2, atol=3)
    off, _ = swap(restoring, frame, reference, SwapOptions(restore=False))
    np.testing.assert_array_equal(off, swapped)


def test_the_demos_engine_refuses_a_gpu() -> None:
    deployment: Any = FaceSwapper
    with pytest.raises(CheckpointRefused, match="runs on the CPU"):
        deployment.func_or_class(FaceSettings(device="cuda"), face_models)


def test_the_memory_of_a_gpu_is_limited_if_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    (cuda, options), cpu = providers(SETTINGS.model_copy(update={"gpu_mem_limit_bytes": 2**30}), use_cuda=True)
    assert (cuda, options["gpu_mem_limit"], cpu) == ("CUDAExecutionProvider", 2**30, "CPUExecutionProvider")
    assert "gpu_mem_limit" not in providers(SETTINGS, use_cuda=True)[0][1]


def test_wrong_files_are_refused_by_name(models: FaceModels, tmp_path: Path) -> None:
    def refused(**changed: Path) -> str:
        with pytest.raises(CheckpointRefused) as refusal:
            build_face_engine(SETTINGS, models.model_copy(update=changed), use_cuda=False)
        return str(refusal.value)

    assert "no such folder" in refused(analysis=tmp_path / "buffalo_xl")
    assert "no such file" in refused(swapper=tmp_path / "inswapper.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    assert "broken.onnx" in refused(swapper=broken)
    gan = onnx_graphs.restorer(tmp_path / "gan.onnx", codeformer=False)
    assert "inswapper takes" in refused(swapper=gan)
    assert "a face restorer takes" in refused(gfpgan=models.swapper)
    assert "choose one" in refused(gfpgan=gan, codeformer=gan)


def test_a_gpu_that_is_configured_but_not_used_is_an_error(models: FaceModels) -> None:
    """A machine without a GPU fails like one whose CPU package shadows the GPU package."""
    with pytest.raises(CheckpointRefused, match="shadows"):
        OnnxSwapper(models.swapper, SETTINGS, use_cuda=True)

    class Cuda:
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def disable_fallback(self) -> None:
            os.environ["RYLA_FALLBACK"] = "off"

    require_device(Cuda(), models.swapper, use_cuda=True)
    assert os.environ.pop("RYLA_FALLBACK") == "off"


@pytest.mark.parametrize("shape", [(1, 2000, 3), (2000, 1, 3), (8, 8, 3), (17, 1500, 3)])
def test_images_too_thin_for_a_detector_show_no_face(
    analyser: OpenCVAnalyser, models: FaceModels, shape: tuple[int, int, int]
) -> None:
    for engine in (analyser, InsightFaceAnalyser(models.analysis, SETTINGS, use_cuda=False)):
        assert engine.faces([np.full(shape, 128, np.uint8)]) == [[]]


def test_loading_face_models_opens_no_socket(models: FaceModels, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a socket was opened"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up a host"))
    build_face_engine(SETTINGS, models, use_cuda=False)
    build_face_engine(FaceSettings(), face_models(), use_cuda=False)
