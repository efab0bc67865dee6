"""Sampling: from a request to denoised latents."""
