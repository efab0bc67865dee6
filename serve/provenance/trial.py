"""What is signed at the start, to see that the certificate is good for it."""

import base64
from datetime import UTC, datetime

from serve.provenance.statement import Statement

PICTURE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
"""A PNG of one pixel."""
PICTURE_TYPE = "image/png"
TRIAL = Statement(kind="generated", models=(), request_id="start", made_at=datetime(2026, 1, 1, tzinfo=UTC))
