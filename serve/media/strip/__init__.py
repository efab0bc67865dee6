"""Removal of the metadata that nobody needs from image files."""
