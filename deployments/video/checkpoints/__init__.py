"""Checkpoints: find model files, check that they are complete, and load them."""
