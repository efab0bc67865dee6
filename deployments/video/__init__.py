"""Video engines: diffusers' Wan classes, loaded, driven and decoded as a stream. Nothing here knows Ray."""
