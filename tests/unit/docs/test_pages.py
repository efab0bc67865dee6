"""Every page of the repository: its links, its width, and no placeholders."""

import re
from pathlib import Path

import pytest

from tests.unit.docs.markdown import PAGES, ROOT, broken_links, prose

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `code` title\n[a](#a-code-title) [b](#no) [c](no.md) [d](page.md#a-code-title) `[e](no.md)` [f](http://x/y)"
    )
    assert broken_links(page) == ["#no", "no.md"]


@pages
def test_prose_is_at_most_100_columns_wide(page: Path) -> None:
    lines = [line for line in prose(page.read_text()).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


@pages
def test_no_page_has_a_placeholder(page: Path) -> None:
    assert [word for word in ("@@", "TODO", "TBD") if word in page.read_text()] == []


def test_the_variables_of_the_proxy_are_documented() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in operations
    assert "RYLA_MAX_BODY_BYTES" in operations
    assert {"RYLA_PROXY", "RYLA_API_KEYS", "RYLA_CORS_ORIGINS"} <= set(re.findall(r"RYLA_\w+", operations))
    assert set(re.findall(r"`(\w+)` \(", operations)) >= {
        "max_head_bytes",
        *("head_timeout_s", "max_connections", "min_bytes_per_s", "stall_timeout_s", "body_timeout_s"),
        *("max_receiving_bytes", "body_queue_timeout_s"),
    }
