"""Speed-ups of one model's arithmetic: results change by rounding only.

``reference`` has the fused operations in plain PyTorch, ``fused`` the same as Triton kernels.
docs/performance.md gives the time that they save and the differences that rounding makes.
"""
