"""The VAE: decoding as a stream, faster modules, and a private view for each request."""
