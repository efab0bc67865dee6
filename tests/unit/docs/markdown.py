"""Reads the documentation: its links, anchors, code blocks and tables."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    """Return the text of a page, given by its path from the root."""
    return (ROOT / page).read_text()


def prose(text: str) -> str:
    """Return ``text`` without its code blocks."""
    return _FENCE.sub("", text)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the content of each code block."""
    return _FENCE.findall(text)


def links(text: str) -> list[str]:
    """Return the target of each link."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings, named as code hosts name them."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        label = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", label.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def table_cells(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of every table."""
    for line in prose(text).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]
