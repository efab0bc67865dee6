"""Speed-ups that keep the result up to rounding: fused operations, attention, transformer blocks."""
