"""One video over several replicas of FaceSwapper."""

import json

import httpx
import psutil
import pytest

from serve.media.samples import data_uri, group, jpeg, pan, stranger
from tests.graph.conftest import Service, wait_until
from tests.graph.test_faces import film

pytestmark = pytest.mark.graph


def _seconds(pids: set[int]) -> dict[int, float]:
    """Processor time that each process has had so far."""
    return {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}


def test_two_replicas_share_a_video_and_make_of_it_what_one_does(service: Service, http: httpx.Client) -> None:
    """Tracks, smoothing and order do not depend on who looked at which chunk."""

    def replicas() -> set[int]:
        return set(service.replicas("ryla", "FaceSwapper").values())

    def swapped() -> bytes:
        response = http.post(f"{service.url}/batch-video-faceswap", json=request)
        assert response.status_code == 200, response.text
        assert response.headers["X-Frames-Swapped"] == "96"
        return response.content

    source = [*pan(stranger(), 96, 192, 224)]
    request = {"source_video": film(source), "reference_image": data_uri(jpeg(group()), "image/jpeg")}
    alone = swapped()
    (first,) = replicas()
    two = json.loads(json.dumps(service.config))
    two["applications"][0]["deployments"] = [{"name": "FaceSwapper", "num_replicas": 2}]
    service.deploy(two)
    try:
        wait_until(lambda: len(replicas()) == 2, 120)
        swapped()  # the new one's first call, until which the routers may not know it
        assert first in replicas(), "scaling is no restart"
        before = _seconds(replicas())
        together = swapped()
        used = {pid: after - before[pid] for pid, after in _seconds(set(before)).items()}
    finally:
        service.deploy(service.config)
        wait_until(lambda: len(replicas()) == 1, 120)
    assert together == alone
    assert min(used.values()) > 0.25 * sum(used.values()), used
