"""The face in an image is replaced, or the caller learns what to change in the request."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from deployments.errors import NoFaceFound, RequestRefused
from deployments.wire import Image, Reference
from serve.client import decode
from serve.config import AppConfig
from serve.media.images import encode_image
from serve.media.samples import data_uri, jpeg, portrait, stranger
from serve.media.spool import read_media
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.requests import SwapImage
from serve.pipelines.result import Result
from tests.pictures import decode_image
from tests.unit.serve.fake_graph import FakeFaceSwapper, FakeGraph, make_face
from tests.unit.serve.http.service import make_service_of
from tests.unit.serve.pipelines.request_builders import FACE, make_context, pipelines_over

SOURCE = jpeg(stranger())
SIX = tuple(replace(make_face((30 * i, 10, 30 * i + 20, 30)), embedding=np.eye(8, dtype=np.float32)[i]) for i in range(6))


async def run(graph: FakeGraph, media_type: str = "image/png", **fields: Any) -> Result:
    request = SwapImage.model_validate({"source": SOURCE, "face": FACE, **fields})
    return await pipelines_over(graph, max_image_pixels=100_000).image_swap.run(request, make_context(media_type))


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp"])
async def test_a_swapped_image_has_the_size_of_the_source_and_the_format_of_the_request(media_type: str) -> None:
    result = await run(FakeGraph(), media_type)
    data = read_media(result.data)
    decoded = decode(data)
    assert (decoded.media_type, decoded.width, decoded.height) == (media_type, 260, 300)
    assert decode_image(data, 10**6).min() > 250, "the fake swapper paints the image white"
    assert (result.media_type, result.frames, result.fps, result.seed) == (media_type, 1, None, None)
    assert result.swap is not None
    assert (result.swap.frames, result.swap.swapped, result.swap.most_faces) == (1, 1, 1)


async def test_the_time_of_a_swap_is_measured_in_phases() -> None:
    graph = FakeGraph()
    context = make_context("image/png")
    request = SwapImage.model_validate({"source": SOURCE, "face": FACE})
    await pipelines_over(graph).image_swap.run(request, context)
    assert set(context.meter.phases) == {"queue", "swap", "encode"}
    assert context.meter.phases["swap"] == 2 * graph.swapper.seconds
    assert context.meter.execution_s == 3 * graph.swapper.seconds, "one call each to identify, analyse and swap"


async def test_an_image_without_a_face_is_refused() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=()))
    with pytest.raises(RequestRefused, match="no face was found; send an image that shows one") as refused:
        await run(graph)
    assert refused.value.field == "source"
    assert graph.swapper.swapped == []


async def test_an_image_without_the_person_to_be_replaced_is_refused() -> None:
    class Somebody(FakeFaceSwapper):
        async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
            found = await super().identify(images, field)
            return replace(found, face=replace(found.face, embedding=np.eye(8, dtype=np.float32)[7]))

    with pytest.raises(RequestRefused, match="none of the 6 faces in the image is this person") as refused:
        await run(FakeGraph(swapper=Somebody(faces=SIX)), target_face=FACE)
    assert refused.value.field == "target_face"
    with pytest.raises(RequestRefused, match="the image does not show this person; send another image of them"):
        await run(FakeGraph(swapper=Somebody(faces=SIX[:1])), target_face=FACE)


async def test_a_face_number_that_the_image_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(RequestRefused, match="the image shows 6 faces, numbered from the left: 0 to 5") as refused:
        await run(FakeGraph(swapper=FakeFaceSwapper(faces=SIX)), faces="index", face_index=6)
    assert refused.value.field == "face_index"
    with pytest.raises(RequestRefused, match="the image shows one face; its index is 0"):
        await run(FakeGraph(swapper=FakeFaceSwapper(faces=SIX[:1])), faces="index", face_index=1)


async def test_a_source_that_is_damaged_or_too_large_is_refused_before_a_gpu_works() -> None:
    graph = FakeGraph()
    with pytest.raises(RequestRefused) as refused:
        await run(graph, source=SOURCE[:-2000])
    assert refused.value.field == "source"
    with pytest.raises(MediaOverLimit) as over:
        await run(graph, source=encode_image(np.zeros((400, 300, 3), np.uint8), "image/png"))
    assert over.value.field == "source"
    assert graph.swapper.identified == []


async def test_a_face_that_is_not_found_is_named_by_its_own_field() -> None:
    black = encode_image(np.zeros((40, 40, 3), np.uint8), "image/png")
    for field in ("face", "target_face"):
        fields: dict[str, Any] = {field: black}
        with pytest.raises(NoFaceFound) as refused:
            await run(FakeGraph(), **fields)
        assert refused.value.field == field


def post(graph: FakeGraph, **fields: Any) -> Any:
    app = make_service_of(AppConfig(), graph)
    body = {"source_image": data_uri(SOURCE, "image/jpeg"), "reference_image": data_uri(FACE, "image/jpeg"), **fields}
    return TestClient(app).post("/image-faceswap", json=body, headers={"Accept": "image/png"})


@pytest.mark.slow
def test_wrong_choices_are_named_with_what_to_send() -> None:
    graph = FakeGraph(swapper=FakeFaceSwapper(faces=SIX))

    def error(**fields: Any) -> tuple[str, str]:
        response = post(graph, **fields)
        assert response.status_code == 422, response.text
        (only,) = response.json()["errors"]
        return only["pointer"], only["detail"]

    assert error(faces="both")[0] == "#/faces"
    assert "'left'" in error(faces="both")[1]
    assert error(faces="index", face_index=6) == ("#/face_index", "the image shows 6 faces, numbered from the left: 0 to 5")
    face, wall = data_uri(jpeg(portrait()), "image/jpeg"), data_uri(jpeg(np.zeros((90, 90, 3), np.uint8)), "image/jpeg")
    assert error(reference_image=[face] * 9) == (
        "#/reference_image",
        "9 images were sent; send 1 to 8 images of one person",
    )
    assert error(target_face=wall)[0] == "#/target_face"
    pointer, detail = error(reference_image=[face, "nonsense"])
    assert pointer == "#/reference_image"
    assert detail.startswith("image 2 of 2:")


class Painter(FakeFaceSwapper):
    """A swapper that pastes the mean of all images of the person."""

    async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
        found = await super().identify(images, field)
        return replace(found, pixels=np.mean(images, axis=0).astype(np.uint8))

    async def swap(self, chunk: Any, faces: Any, reference: Reference, options: Any, origin: object = None) -> Any:
        swapped = await super().swap(chunk, faces, reference, options)
        swapped.frames[:, : reference.pixels.shape[0], : reference.pixels.shape[1]] = reference.pixels
        return swapped


def test_several_images_of_a_person_go_in_as_an_array_or_as_parts_of_one_name() -> None:
    graph = FakeGraph(swapper=Painter())
    pictures = [jpeg(portrait()), jpeg(portrait()[:, ::-1])]
    array = post(graph, reference_image=[data_uri(data, "image/jpeg") for data in pictures])
    parts = [("source_image", SOURCE), *(("reference_image", data) for data in pictures)]
    app = make_service_of(AppConfig(), graph)
    form = TestClient(app).post(
        "/image-faceswap",
        files=[(name, (f"{i}.jpg", data, "image/jpeg")) for i, (name, data) in enumerate(parts)],
        headers={"Accept": "image/png"},
    )
    assert array.status_code == form.status_code == 200
    assert array.content == form.content
    shown = decode_image(array.content, 10**6)[:192, :160]
    # The watermark differs by up to 9 levels between one side and the other.
    assert np.abs(shown.astype(int) - shown[:, ::-1]).max() <= 9, "the mean of a picture and its mirror image is symmetric"
