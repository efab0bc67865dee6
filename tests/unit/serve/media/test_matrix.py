"""A sample of all kinds of films; ``python -m tests.media.matrix`` tries more of them."""

import shutil

import pytest

from tests.media.films import Film, draw
from tests.media.matrix import differences


@pytest.mark.slow
@pytest.mark.parametrize("film", draw(40, seed=1), ids=str)
def test_a_film_is_shown_as_it_was_made(film: Film) -> None:
    assert differences(film, shutil.which("ffmpeg")) == []
