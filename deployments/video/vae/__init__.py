"""The VAE: streamed decoding, and faster modules for it."""
