"""Prepare the demo's face models: `python -m demo [FOLDER]`.

The models are then ready before a replica first needs them. Without FOLDER they go to
`$RYLA_DEMO_DIR`, or else to `~/.cache/ryla`. The command prints the folder that holds them.
"""

import sys
from pathlib import Path

from demo.face_models import face_models

if __name__ == "__main__":
    print(face_models(Path(sys.argv[1]) if len(sys.argv) > 1 else None).detector.parent)
