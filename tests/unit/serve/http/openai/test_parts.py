from typing import Any

import pytest

from serve.http.openai.parts import whole_fields
from serve.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import FACE, make_client

KNOWN = {"prompt", "face_image", "mask_regions", "pairs", "input_reference"}


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        ({"prompt": "a [cat]", "face_image": None}, {"prompt": "a [cat]"}),
        ({"mask_regions[]": ["nose", "mouth"]}, {"mask_regions": ["nose", "mouth"]}),
        ({"face_image[]": b"one"}, {"face_image": [b"one"]}),
        ({"face_image[]": None}, {}),
        ({"input_reference[image_url]": "data:"}, {"input_reference": {"image_url": "data:"}}),
        ({"input_reference[image_url]": "u", "input_reference[x]": 1}, {"input_reference": {"image_url": "u", "x": 1}}),
        ({"metadata[a][b]": "c", "other[]": "d"}, {"metadata[a][b]": "c", "other[]": "d"}),
    ],
)
def test_fields_are_put_together_from_their_parts(sent: dict[str, Any], whole: dict[str, Any]) -> None:
    assert whole_fields(sent, KNOWN) == whole


@pytest.mark.parametrize(
    ("sent", "field", "says"),
    [
        ({"pairs[][reference_image]": "x"}, "pairs", "JSON text"),
        ({"pairs[0][reference_image]": "x"}, "pairs", "JSON text"),
        ({"face_image[0]": b"x"}, "face_image", "JSON text"),
        ({"input_reference[image_url][x]": "u"}, "input_reference", "JSON text"),
        ({"face_image": b"one", "face_image[]": b"two"}, "face_image", "send one of them"),
        ({"input_reference[image_url]": "u", "input_reference": b"one"}, "input_reference", "send one of them"),
        ({f"input_reference[a{number}]": "u" for number in range(11)}, "input_reference", "more than 10 members"),
    ],
)
def test_parts_that_say_too_little_are_refused(sent: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(Problem, match=says) as refused:
        whole_fields(sent, KNOWN)
    assert (refused.value.status, [error.field for error in refused.value.errors]) == (422, [field])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"input_reference": {"image_url": "data:image/jpeg;base64,bm8gcGljdHVyZQ=="}}, "input_reference"),
        ({"reference_image": "bm8gcGljdHVyZQ=="}, "reference_image"),
        ({"input_reference": {"image_url": FACE}, "face_image": "bm8gcGljdHVyZQ=="}, "face_image"),
    ],
)
def test_a_video_that_failed_names_the_field_as_it_was_sent(body: dict[str, Any], name: str) -> None:
    """A file is looked at only when the job runs, and then the names of the API are still known."""
    with make_client(FakeGraph()) as client:
        video = client.post("/v1/videos", json={"prompt": "x", "size": "64x48", "seconds": "0.5", **body}).json()
        client.get(f"/jobs/{video['id']}/result", params={"wait": 60})
        failed = client.get(f"/v1/videos/{video['id']}").json()
        record = client.get(f"/jobs/{video['id']}").json()
    assert failed["error"]["message"].startswith(f"`{name}`: ")
    assert record["error"]["errors"][0]["pointer"] == f"#/{name}"
