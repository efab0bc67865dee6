"""Reads the documentation: its links, anchors, code blocks and tables."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = (
    "benchmarks",
    "constraints",
    "demo",
    "deployments",
    "docs",
    "helm",
    "k8s",
    "loadtest",
    "serve",
    "tests",
    "training",
)
"""The folders of the repository, without hidden ones and those that commands create."""
_FOUND = (*sorted(ROOT.glob("*.md")), *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))))
PAGES = tuple(page for page in _FOUND if "node_modules" not in page.parts)

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
    """Return the target of each link outside of code."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file or to no heading. URLs are not followed."""
    broken = []
    for target in links(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    return broken


def contents(text: str) -> list[str]:
    """Return the anchors that a page links to before its first section: its table of contents."""
    return [target[1:] for target in links(text.partition("\n## ")[0]) if target.startswith("#")]


def sections(text: str) -> list[str]:
    """Return the anchors of a page's sections, which are its headings of the second level."""
    below_title = re.sub(r"^(#|###+) .*$", "", prose(text), flags=re.MULTILINE)
    return [anchor for line in re.findall(r"^## .*$", below_title, re.MULTILINE) for anchor in anchors(line)]


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


def section(text: str, heading: str) -> str:
    """Return the part of a page between a heading and the next one of any level."""
    match = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, heading
    return match.group(1)


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, row by row, without the table's head."""
    return list(table_cells(section(text, heading)))[2:]
