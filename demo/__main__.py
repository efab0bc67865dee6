"""`python -m demo [FOLDER]`: makes the demo's models now, instead of when a replica first needs them."""

import sys
from pathlib import Path

from demo.checkpoints import ensure_checkpoints
from demo.face_models import ensure_face_models

root = Path(sys.argv[1]) if len(sys.argv) > 1 else None
for folder in (ensure_checkpoints(root).folder, ensure_face_models(root).folder):
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.0f} MiB")
