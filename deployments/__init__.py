"""The graph's nodes: what runs on the GPUs. Nothing here knows HTTP."""
