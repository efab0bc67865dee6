"""Training of the demo's models; see README.md. This package is not part of the wheel."""
