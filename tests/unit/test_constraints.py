"""Every package that is installed with a pinned version is verified by its hashes."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "constraints"


def pins(text: str) -> dict[str, str]:
    """Return the version of each package."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def test_every_pinned_version_has_hashes() -> None:
    hashed = (FOLDER / "hashes.txt").read_text()
    blocks = [block for block in re.split(r"\n(?=\w)", hashed) if block.strip()]
    assert all("--hash=sha256:" in block for block in blocks)
    expected = pins((FOLDER / "constraints.txt").read_text())
    expected.pop("torch")  # its own index has other files of the same version
    assert pins(hashed) == expected, "run `make hashes`"
