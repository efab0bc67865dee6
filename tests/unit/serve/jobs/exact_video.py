"""The fields of a video whose numbers are hard to keep exactly."""

from typing import Any

from tests.unit.serve.jobs import job_builders

VIDEO: dict[str, Any] = {**job_builders.VIDEO, "cfg": 3.5, "fps": 29.97, "seed": 2**63 - 1}
