"""The errors that a pipeline adds to those of the deployments."""

import pytest

from deployments.errors import NoFaceFound, RequestRefused
from serve.pipelines.errors import MediaOverLimit, ModelUnavailable, qualify


@pytest.mark.parametrize("kind", [RequestRefused, NoFaceFound, MediaOverLimit])
def test_a_part_is_named_in_the_detail_and_the_kind_of_the_error_stays(kind: type[RequestRefused]) -> None:
    error = qualify(kind("face", "the file is damaged"), "image 2 of 3")
    assert type(error) is kind
    assert (error.field, error.detail) == ("face", "image 2 of 3: the file is damaged")


def test_an_unavailable_model_says_when_to_try_again() -> None:
    error = ModelUnavailable("the model wan26 could not be started", retry_after_s=60)
    assert (str(error), error.detail, error.retry_after_s) == (error.detail, "the model wan26 could not be started", 60)
