"""The folder where demo models lie once they are made."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def default_root() -> Path:
    """``$RYLA_DEMO_DIR``, else a cache folder of the user."""
    return Path(os.environ.get("RYLA_DEMO_DIR") or Path.home() / ".cache" / "ryla")


def ensure_folder(name: str, write: Callable[[Path], None], root: Path | None = None) -> Path:
    """``root/name``; if it is not there, ``write`` fills it first. Safe to call from several processes at once."""
    root = root or default_root()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.is_dir():
            draft = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
            try:
                write(draft)
                draft.rename(folder)  # whole or not at all: a killed process leaves no half a model
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder
