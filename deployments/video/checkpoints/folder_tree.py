"""The files below a folder, also through links."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class FolderTree:
    """What is below a folder."""

    files: list[Path] = field(default_factory=list)
    """All files in their order, with links that lead nowhere."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Folders that cannot be listed, with the reason."""


def read_tree(root: Path) -> FolderTree:
    """Return what is below ``root``.

    Links to folders are followed, since people keep their models elsewhere. Each folder is listed
    once, so that links in a circle come to an end; one that is there itself goes before its links.
    """
    tree = FolderTree()
    folders, links = deque([root]), deque[Path]()
    seen: set[str] = set()
    while folders or links:
        folder = (folders or links).popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            for entry in sorted(folder.iterdir()):
                if not entry.is_dir():
                    tree.files.append(entry)
                elif entry.is_symlink():
                    links.append(entry)
                else:
                    folders.append(entry)
        except OSError as error:
            tree.unreadable[folder] = error.strerror or str(error)
    tree.files.sort()
    return tree
