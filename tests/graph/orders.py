"""Requests for videos, as the fake engine understands them."""

import json
from typing import Any

from serve.http.examples import payload

FACE = payload("wan2.6-i2v")["reference_image"]


def order(name: str, **rest: Any) -> dict[str, Any]:
    """Return a request body that the fake engine understands."""
    return {"prompt": json.dumps({"name": name, **rest}), "reference_image": FACE, "face_image": FACE}
