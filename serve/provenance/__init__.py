"""Marks of results: what says that a machine made them, and what reads it."""
