"""Decoding of videos and animations into frames, and what is known about a file before that."""
