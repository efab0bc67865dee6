"""What the tests of marks share: one of each result, which takes long to encode."""

from collections.abc import Iterator

import pytest

from serve.media.spool import Media, Spool
from tests.unit.serve.provenance.results import results


@pytest.fixture(scope="session")
def made() -> Iterator[dict[str, tuple[str, Media]]]:
    """A media type and a file for each kind of result."""
    files = results()
    yield files
    for _, media in files.values():
        if isinstance(media, Spool):
            media.close()
