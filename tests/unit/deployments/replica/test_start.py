"""What a replica says while it loads its models."""

import logging
from pathlib import Path

import pytest

from deployments.errors import CheckpointRefused
from deployments.replica.start import starting
from deployments.settings import AlignmentFaceModels, Wan26Models


def test_a_start_says_what_it_loads_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    models = AlignmentFaceModels(detector=Path("yunet.onnx"), recogniser=Path("sface.onnx"))
    with caplog.at_level(logging.INFO, "ray.serve"), starting("face-swapper", models):
        assert caplog.messages == ["face-swapper is loading its models: detector=yunet.onnx, recogniser=sface.onnx"]
    assert caplog.messages[1].startswith("face-swapper has loaded its models in ")


def test_a_start_that_fails_says_why_and_fails(caplog: pytest.LogCaptureFixture) -> None:
    models = Wan26Models(text="/models/wan", loras="ftp://ada:secret@host/loras")
    with (
        caplog.at_level(logging.INFO, "ray.serve"),
        pytest.raises(CheckpointRefused),
        starting("wan26", models),
    ):
        raise CheckpointRefused("/models/wan: no such folder")
    assert caplog.messages[-1] == "wan26 cannot load its models: /models/wan: no such folder"
    assert "secret" not in caplog.text
