"""What is signed at the start is a picture of its type, and says nothing of anybody."""

import io

import PIL.Image

from serve.provenance.manifest import manifest_of
from serve.provenance.media_types import media_type_of
from serve.provenance.trial import PICTURE, PICTURE_TYPE, TRIAL


def test_the_picture_is_one_pixel_and_of_the_type_that_is_said() -> None:
    image = PIL.Image.open(io.BytesIO(PICTURE))
    image.load()
    assert image.size == (1, 1)
    assert image.get_format_mimetype() == media_type_of(PICTURE) == PICTURE_TYPE


def test_its_manifest_is_of_the_kind_that_most_results_have_and_names_no_request() -> None:
    manifest = manifest_of(TRIAL, model=True, seed=True, is_test=False, ingredients=[])
    labels = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    (action,) = labels["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["when"]) == ("c2pa.created", "2026-01-01T00:00:00Z")
    assert labels["ryla.request"] == {"id": "start"}
    assert labels["ryla.generation"] == {"models": []}
