"""The processes in which callers' files are decoded, so that a fault ends only the process."""
