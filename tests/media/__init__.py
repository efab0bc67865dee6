"""Commands that try many media files: mutated ones, and all combinations of a kind."""
