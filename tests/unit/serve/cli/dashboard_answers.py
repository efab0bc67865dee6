"""Answers of Ray's dashboard."""

import json
from typing import Any

from tests.unit.serve.scripted_server import Scripted

GPU = {"index": 0, "name": "NVIDIA L40S", "utilizationGpu": 87, "memoryUsed": 18022, "memoryTotal": 46068, "processesPids": {}}
RAYLET = {"state": "ALIVE", "nodeManagerHostname": "gpu-1", "objectStoreUsedMemory": 4096}
NODES = {
    "result": True,
    "msg": "Node summary fetched.",
    "data": {
        "summary": [
            {"hostname": "gpu-1", "ip": "10.0.0.2", "gpus": [GPU], "raylet": RAYLET},
            {"hostname": "old", "gpus": [], "raylet": {"state": "DEAD", "objectStoreUsedMemory": 0}},
        ]
    },
}


def answer(body: Any, status: int = 200) -> Scripted:
    return Scripted(json.dumps(body).encode(), status, {"Content-Type": "application/json"})
