"""The embedded default: models small enough for a CPU, in the very formats of production."""
