"""Every page of the repository: its links, its width, and no placeholders."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serve.cli.service import STOP_TIMEOUT_S
from tests.unit.docs.markdown import PAGES, ROOT, broken_links, code_blocks, contents, prose, sections

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


LONG = [page for page in PAGES if page.parent == ROOT / "docs" and len(page.read_text().splitlines()) > 150]


@pytest.mark.parametrize("page", LONG, ids=lambda page: page.stem)
def test_a_long_page_begins_with_a_table_of_all_its_sections(page: Path) -> None:
    listed, existing = contents(page.read_text()), sections(page.read_text())
    assert [anchor for anchor in listed if anchor in existing] == existing, "all of them, in their order"


def test_a_section_that_the_contents_lack_is_found() -> None:
    text = "# Title\n\n- [A](#a), [more](#more)\n- [C](#c)\n\n## A\n\n### More\n\n[x](#b)\n\n## B\n\n## C\n"
    assert (contents(text), sections(text)) == (["a", "more", "c"], ["a", "b", "c"])
    assert {page.stem for page in LONG} >= {"architecture", "getting-started", "http", "models", "operations", "performance"}


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_files_that_commands_name_exist(page: str) -> None:
    commands = "\n".join(block for language, block in code_blocks((ROOT / page).read_text()) if language in ("sh", "python"))
    files = set(re.findall(r"[@\s\"']((?:serve|helm|docs|constraints)/[\w./-]+)", commands))
    assert len(files) >= 2
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md", "docs/operations.md"])
def test_ryla_is_called_after_the_environment_is_activated(page: str) -> None:
    """A page that makes the environment says how to enter it before it uses what is in it."""
    commands = [
        line for language, block in code_blocks((ROOT / page).read_text()) if language == "sh" for line in block.splitlines()
    ]
    first = next(i for i, line in enumerate(commands) if line.startswith("ryla "))
    assert ". .venv/bin/activate" in commands[:first]


def test_the_unit_of_systemd_is_valid(tmp_path: Path) -> None:
    (unit,) = [block for language, block in code_blocks((ROOT / "docs" / "operations.md").read_text()) if language == "ini"]
    lines = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert lines["Restart"] == "on-failure"
    assert lines["ExecStart"].endswith("/bin/ryla serve single-gpu")
    assert int(lines["TimeoutStopSec"]) > STOP_TIMEOUT_S + 10
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("the syntax needs systemd-analyze")
    program = tmp_path / "ryla"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "ryla.service"
    path.write_text(unit.replace(lines["ExecStart"], f"{program} serve single-gpu").replace("WorkingDirectory=/opt/ryla\n", ""))
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    result = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60, env=environment)
    assert [line for line in (result.stdout + result.stderr).splitlines() if "ryla.service" in line] == []
    assert result.returncode == 0, result.stderr


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
        *("max_receiving_bytes", "body_queue_timeout_s", "max_unread_bytes"),
    }
