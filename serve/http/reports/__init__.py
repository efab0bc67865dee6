"""What logs, traces and metrics say about requests."""
