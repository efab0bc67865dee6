"""What is said of a result follows from what was done."""

from dataclasses import replace
from importlib.metadata import version
from typing import Any, cast, get_args

import pytest

from serve.provenance.statement import COMPOSITE, GENERATED, SOFTWARE, VERSION, Kind
from tests.unit.serve.provenance.results import STATEMENT


@pytest.mark.parametrize(("kind", "name"), [("generated", GENERATED), ("edited", COMPOSITE), ("unchanged", None)])
def test_the_source_type_follows_from_what_was_done(kind: Any, name: str | None) -> None:
    assert replace(STATEMENT, kind=kind).source_type == name
    assert name is None or name.startswith("http://cv.iptc.org/newscodes/digitalsourcetype/")


def test_every_kind_has_a_source_type_and_no_other_word_is_one() -> None:
    for kind in get_args(Kind):
        replace(STATEMENT, kind=kind).source_type  # noqa: B018 - it must not raise
    with pytest.raises(KeyError):
        replace(STATEMENT, kind=cast(Any, "guessed")).source_type  # noqa: B018


def test_the_software_is_this_package() -> None:
    assert ("ryla-serve", version("ryla-serve")) == (SOFTWARE, VERSION)
