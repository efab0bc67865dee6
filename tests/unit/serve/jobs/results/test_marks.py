"""What a result is said to be follows from what was done, not from what was asked for."""

import json
import logging

import numpy as np
import pytest

from deployments.errors import RequestRefused
from serve.jobs.results.marks import ResultMarks, kind_of
from serve.media.images import encode_image
from serve.pipelines.errors import ModelUnavailable
from serve.pipelines.requests import PipelineRequest, SwapVideo
from serve.pipelines.result import Result, SwapTally
from serve.provenance.manifest import c2pa_settings
from serve.provenance.marking import Marking, MarksNotRead
from serve.provenance.reading import read_marks
from serve.provenance.statement import COMPOSITE, Kind
from serve.provenance_settings import ProvenanceSettings
from tests.unit.serve.pipelines.request_builders import video_request
from tests.unit.serve.provenance.results import PICTURE

FILM = SwapVideo(source=b"a film", face=[b"a face"])


@pytest.mark.parametrize(
    ("request_", "swapped", "kind"),
    [
        (FILM, 0, "unchanged"),
        (FILM, 1, "edited"),
        (video_request(), None, "generated"),
        (video_request(), 0, "generated"),
        (video_request(extend=9), None, "edited"),
    ],
)
def test_a_result_is_what_was_made_of_it(request_: PipelineRequest, swapped: int | None, kind: Kind) -> None:
    tally = None if swapped is None else SwapTally(frames=5, swapped=swapped)
    assert kind_of(request_, Result(b"", "video/mp4", 5, swap=tally)) == kind


async def test_a_source_that_could_not_be_looked_at_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    marking = Marking(ProvenanceSettings(), demo=False, processes=1)

    async def fail(_: object) -> None:
        raise MarksNotRead("source", "it took too long")

    monkeypatch.setattr(marking, "look", fail)
    with pytest.raises(ModelUnavailable, match="`source` could not be read") as raised:
        await ResultMarks(marking, FILM).look()
    assert not isinstance(raised.value, RequestRefused)
    assert raised.value.retry_after_s > 0


async def test_a_preview_has_metadata_but_no_signature() -> None:
    marks = ResultMarks(Marking(ProvenanceSettings(), demo=True, processes=1), FILM)
    preview, said = await marks.describe(encode_image(PICTURE, "image/jpeg"), "image/jpeg", models=["a"], request_id="1")
    report = read_marks(preview, c2pa_settings())
    assert report["metadata"]["digital_source_type"] == COMPOSITE
    assert report["c2pa"] is None
    assert said == ("metadata",)


async def test_all_previews_of_a_job_have_one_number_and_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    settings = ProvenanceSettings.model_validate({"aigc": {"enabled": True, "producer": "Example"}})
    marks = ResultMarks(Marking(settings, demo=True, processes=1), FILM)
    numbers = []
    with caplog.at_level(logging.INFO, "ray.serve"):
        for level in (20, 90, 160):
            frame = encode_image(np.full_like(PICTURE, level), "image/jpeg")
            preview, said = await marks.describe(frame, "image/jpeg", models=["a"], request_id="r1")
            assert said == ("metadata", "aigc")
            numbers.append(json.loads(read_marks(preview, c2pa_settings())["aigc"])["ProduceID"])
    logged = [record.getMessage() for record in caplog.records if "ProduceID" in record.getMessage()]
    assert logged == [f"previews of request r1: AIGC ProduceID {numbers[0]}"]
    assert numbers == numbers[:1] * 3
