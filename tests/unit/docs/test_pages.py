from pathlib import Path

import pytest

from tests.unit.docs.markdown import PAGES, ROOT, anchors, links, prose

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text()
    broken = []
    for target in links(text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


@pages
def test_prose_is_at_most_100_columns_wide(page: Path) -> None:
    lines = [line for line in prose(page.read_text()).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


@pages
def test_no_page_has_a_placeholder(page: Path) -> None:
    assert [word for word in ("@@", "TODO", "TBD") if word in page.read_text()] == []
