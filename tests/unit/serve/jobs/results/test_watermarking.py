from typing import Any

import numpy as np
import pytest

from serve.jobs.request import JobRequest, read_request
from serve.jobs.results.watermarking import Watermarking
from serve.media.spool import Spool
from serve.pipelines.requests import SwapImage
from serve.provenance_settings import WatermarkSettings
from serve.telemetry.metrics import PROVENANCE_FAILURES
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.pipelines.request_builders import video_request


@pytest.fixture
def watermarking() -> Watermarking:
    return Watermarking(WatermarkSettings(key_id=3))


def job_request(request: Any = None, **others: Any) -> JobRequest:
    fields: dict[str, Any] = {"endpoint": "wan2.6-t2v", "model": "wan26", "request": request or video_request(), "sent_as": {}}
    return JobRequest(**{**fields, **others})


def swap(source: Any = b"a picture") -> JobRequest:
    return job_request(SwapImage(source=source, face=[b"a face"]), endpoint="image-faceswap", model="face-swapper")


def test_the_number_follows_from_what_decides_about_the_pixels(watermarking: Watermarking) -> None:
    payloads = [
        watermarking.payload_of(request, seed)
        for request, seed in (
            (job_request(), 1),
            (job_request(), 2),
            (job_request(video_request(prompt="a dog")), 1),
            (job_request(model="wan22-gguf"), 1),
            (swap(), None),
            (swap(b"another picture"), None),
        )
    ]
    assert len(set(payloads)) == len(payloads)
    assert {payload.key_id for payload in payloads} == {3}


def test_a_request_that_was_stored_has_the_same_number(watermarking: Watermarking) -> None:
    for request in (job_request(), swap()):
        assert watermarking.payload_of(read_request(request.write()), 7) == watermarking.payload_of(request, 7)


def test_names_that_the_caller_used_do_not_matter(watermarking: Watermarking) -> None:
    named = job_request(sent_as={"frames": "num_frames"}, ignored=("colour",))
    assert watermarking.payload_of(named, 7) == watermarking.payload_of(job_request(), 7)


def test_what_changes_no_pixel_does_not_matter(watermarking: Watermarking) -> None:
    plain, styled = video_request(), video_request(loras=(("ink", 0.5),))
    same = video_request(loras=(("film", 0.0), ("sepia", -0.0)), adjusted=(("width", plain.width),))
    number = {key: watermarking.payload_of(job_request(request), 7) for key, request in (("plain", plain), ("same", same))}
    assert number["same"] == number["plain"]
    mixed = video_request(loras=(("film", 0.0), ("ink", 0.5)))
    assert watermarking.payload_of(job_request(mixed), 7) == watermarking.payload_of(job_request(styled), 7) != number["plain"]


def test_a_file_on_disk_counts_as_its_bytes(watermarking: Watermarking) -> None:
    spool = Spool.empty()
    spool.write(b"a picture")
    assert watermarking.payload_of(swap(spool), None) == watermarking.payload_of(swap(), None)


def test_another_secret_gives_another_number(tmp_path: Any, watermarking: Watermarking) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef")
    other = Watermarking(WatermarkSettings(key_id=3, key=path))
    assert other.payload_of(job_request(), 7) != watermarking.payload_of(job_request(), 7)


@pytest.mark.parametrize(("side", "claim"), [(128, "watermark"), (48, "watermark=failed")])
def test_a_watermark_is_claimed_only_where_frames_can_hold_it(watermarking: Watermarking, side: int, claim: str) -> None:
    new_mark = watermarking.of(watermarking.payload_of(swap(), None))
    with recorded_metrics() as recorded:
        new_mark().mark(np.random.default_rng(1).integers(0, 256, (1, side, side, 3), np.uint8))
        new_mark.apart()()
        assert new_mark.claim("a request") == claim
        assert recorded.values(PROVENANCE_FAILURES, layer="watermark") == ([] if claim == "watermark" else [1])
