"""Sampling: prepares what a video is conditioned on, and denoises its latents."""
