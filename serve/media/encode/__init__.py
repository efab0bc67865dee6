"""Encoding of frames as MP4, WebP and GIF."""
