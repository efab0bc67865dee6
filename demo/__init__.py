"""The embedded default: models small enough for a CPU, in the file formats of production."""
