"""Aligned crops of a frame: cutting them out, matching their colours, pasting them back."""
