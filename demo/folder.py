"""The cache folder for models that are prepared on first use."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def default_root() -> Path:
    """Return ``$RYLA_DEMO_DIR`` if it is set, else ``~/.cache/ryla``."""
    return Path(os.environ.get("RYLA_DEMO_DIR") or Path.home() / ".cache" / "ryla")


def ensure_folder(name: str, write: Callable[[Path], None], root: Path | None = None) -> Path:
    """Return the folder ``root/name``; if it does not exist yet, ``write`` fills it first.

    ``root`` defaults to ``default_root()``. Several processes may call this at the same time.
    """
    root = root or default_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.is_dir():
            draft = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
            try:
                write(draft)
                draft.rename(folder)  # atomic: a process that is killed leaves no partial folder
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder
