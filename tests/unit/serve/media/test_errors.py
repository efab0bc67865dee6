"""The errors of media files: one family, whose members become different problems."""

import pytest

from deployments.errors import RequestRefused
from serve.media.errors import MediaError, MediaTooLarge
from serve.pipelines.media_threads import MediaThreads
from serve.problems import problem_of


def _fail(error: MediaError) -> None:
    raise error


def test_a_file_that_is_too_large_is_a_media_error_with_its_message() -> None:
    with pytest.raises(MediaError, match="at most 5 frames are accepted") as caught:
        _fail(MediaTooLarge("at most 5 frames are accepted"))
    assert isinstance(caught.value, MediaTooLarge)


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [(MediaError("the file is damaged"), 422, "invalid-field"), (MediaTooLarge("it is too long"), 413, "media-too-large")],
)
async def test_a_caller_learns_which_field_holds_the_file(error: MediaError, status: int, slug: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        await MediaThreads(1).check("source", _fail, error)
    problem = problem_of(caught.value)
    assert problem is not None
    assert (problem.status, problem.slug) == (status, slug)
    assert [(each.field, each.detail) for each in problem.errors] == [("source", str(error))]
