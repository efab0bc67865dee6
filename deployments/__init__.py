"""The nodes of the graph: what runs on the GPUs. Nothing here depends on HTTP."""
