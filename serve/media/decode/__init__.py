"""Decoding of videos and animations into frames, and what is known of a file before that."""
