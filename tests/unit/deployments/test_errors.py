"""The errors survive the way between processes."""

import inspect
import pickle

import pytest

from deployments import errors
from deployments.errors import DeploymentError, RequestRefused

ALL = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, DeploymentError) and error is not RequestRefused
]


@pytest.mark.parametrize("error", [e for e in ALL if issubclass(e, RequestRefused)])
def test_a_refusal_keeps_its_field_and_its_detail(error: type[RequestRefused]) -> None:
    copy = pickle.loads(pickle.dumps(error("prompt", "too long; send a shorter one")))
    assert type(copy) is error
    assert (copy.field, copy.detail) == ("prompt", "too long; send a shorter one")


@pytest.mark.parametrize("error", [e for e in ALL if not issubclass(e, RequestRefused)])
def test_other_errors_keep_their_message(error: type[DeploymentError]) -> None:
    copy = pickle.loads(pickle.dumps(error("model.gguf: no tensor `head.weight`")))
    assert type(copy) is error
    assert str(copy) == "model.gguf: no tensor `head.weight`"


def test_only_what_a_caller_can_fix_is_a_refusal() -> None:
    refusals = {error.__name__ for error in ALL if issubclass(error, RequestRefused)}
    assert refusals == {
        "AccelerationNotSupported",
        "ImageNotSupported",
        "LoraNotUsable",
        "NoFaceFound",
        "PromptTooLong",
        "VideoTooLarge",
    }
