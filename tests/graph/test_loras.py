"""LoRAs by request: those that are listed change the video by their scale, and add up."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.graph.conftest import Service
from tests.graph.frames import frames_of

pytestmark = pytest.mark.graph


def test_listed_loras_change_the_video_by_their_scale_and_add_up(service: Service, http: httpx.Client) -> None:
    """`sepia` makes a blue ground brown, and with `ink` it is a light wash."""
    listed = {lora["name"] for lora in http.get(f"{service.url}/loras").json()["loras"]["wan26"]}
    assert listed == {"ink", "sepia"}

    def post(**scales: float) -> httpx.Response:
        loras = [{"name": name, "scale": scale} for name, scale in scales.items()]
        body: dict[str, Any] = {
            "prompt": "a red star moves right on a dark blue background",
            "width": 64,
            "height": 64,
            "length": 5,
        }
        body |= {"steps": 2, "cfg": 1, "seed": 1}
        response = http.post(f"{service.url}/wan2.6", json={**body, "loras": loras}, headers={"accept": "video/mp4"})
        assert response.status_code == 200, response.text
        return response

    def ground(response: httpx.Response) -> Any:
        """Return the mean colour of a corner."""
        return np.stack(frames_of(response.content))[:, :8, :8].mean(axis=(0, 1, 2))

    def blue(response: httpx.Response) -> float:
        """Return by how much the ground is more blue than red."""
        red, _, blue = ground(response)
        return float(blue - red)

    base, half, full, both = post(), post(sepia=0.5), post(sepia=1), post(sepia=1, ink=1)
    assert "x-loras" not in base.headers
    assert both.headers["x-loras"] == "sepia=1; ink=1"
    assert blue(base) > 30 > blue(half) > blue(full) + 5
    assert ground(both).min() > ground(base).max()
    assert ground(both).argmax() == 0, "brown"
    assert post(sepia=0).content == base.content
