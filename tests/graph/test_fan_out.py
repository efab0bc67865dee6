"""Several replicas of FaceSwapper work on one video."""

import json
from collections.abc import Sequence

import httpx
import psutil
import pytest

from deployments.wire import Image
from serve.media.samples import data_uri, group, jpeg, pan, stranger
from serve.models import FACE_SWAPPER
from tests.graph.conftest import Service, wait_until
from tests.graph.films import film

pytestmark = pytest.mark.graph


def _cpu_seconds(pids: set[int]) -> dict[int, float]:
    """Return the CPU time in seconds that each process has used so far."""
    return {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}


def test_two_replicas_share_a_video_and_give_the_result_of_one(service: Service, http: httpx.Client) -> None:
    """Tracks, smoothing and order do not depend on which replica analysed which chunk."""

    def replicas() -> set[int]:
        return set(service.replicas("ryla", FACE_SWAPPER.deployment).values())

    def swapped(source: Sequence[Image]) -> bytes:
        request = {"source_video": film(source), "reference_image": data_uri(jpeg(group()), "image/jpeg")}
        response = http.post(f"{service.url}/batch-video-faceswap", json=request)
        assert response.status_code == 200, response.text
        assert response.headers["X-Frames-Swapped"] == str(len(source))
        return response.content

    source = [*pan(stranger(), count=48, width=192, height=224)]
    alone = swapped(source)
    (first,) = replicas()
    two = json.loads(json.dumps(service.config))
    two["applications"][0]["deployments"] = [{"name": FACE_SWAPPER.deployment, "num_replicas": 2}]
    service.deploy(two)
    try:
        wait_until(lambda: len(replicas()) == 2, 120)
        swapped(source[:16])  # the routers may not know the new replica before its first call
        assert first in replicas(), "scaling must not restart a replica"
        before = _cpu_seconds(replicas())
        together = swapped(source)
        used = {pid: after - before[pid] for pid, after in _cpu_seconds(set(before)).items()}
    finally:
        service.deploy(service.config)
        wait_until(lambda: len(replicas()) == 1, 120)
    assert together == alone
    assert min(used.values()) > 0.25 * sum(used.values()), used
