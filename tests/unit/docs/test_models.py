"""The table of files that are read names tests that exist."""

import re

from tests.unit.docs.markdown import ROOT

TESTS = ROOT / "tests" / "engines" / "video" / "checkpoints"


def test_each_file_that_is_read_names_its_tests() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    (table,) = re.findall(r"\| publisher \| file \| form \| tests \|\n\|[-|]+\|\n((?:\|.*\n)+)", page)
    rows = [row.strip("|\n ").split(" | ") for row in table.splitlines()]
    assert len(rows) > 10
    for row in rows:
        assert len(row) == 4, row
        named = re.findall(r"`([^`]+)`", row[3])
        assert named, row
        for name in named:
            file, _, function = name.partition("::")
            assert (TESTS / file).is_file(), f"{row[1]} names {file}, which does not exist"
            defined = re.findall(r"^(?:async )?def (test_\w+)\(", (TESTS / file).read_text(), flags=re.MULTILINE)
            assert function in defined, f"{row[1]} names {function}, which is not in {file}"
