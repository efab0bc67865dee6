"""GPU memory: what stays on the GPU, what is offloaded, and which device runs an engine."""
