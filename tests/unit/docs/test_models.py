"""The table of files that are read names tests that exist."""

import re

from tests.unit.docs.markdown import ROOT

TESTS = ROOT / "tests" / "engines" / "video" / "checkpoints"


def test_each_file_that_is_read_names_its_tests() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    (table,) = re.findall(r"\| publisher \| file \| form \| test \|\n\|[-|]+\|\n((?:\|.*\n)+)", page)
    rows = [row.strip("|\n ").split(" | ") for row in table.splitlines()]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`([^`]*test_\w+\.py)`", row[3])
        assert named, row
        for name in named:
            assert (TESTS / name).is_file(), f"{row[1]} names {name}, which does not exist"
