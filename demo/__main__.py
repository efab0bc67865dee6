"""`python -m demo [FOLDER]`: folds the demo's face models now, instead of when a replica first needs them."""

import sys
from pathlib import Path

from demo.face_models import ensure_face_models

print(ensure_face_models(Path(sys.argv[1]) if len(sys.argv) > 1 else None).folder)
