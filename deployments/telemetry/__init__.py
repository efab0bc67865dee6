"""What replicas tell of their work: metrics, the origin of a call in logs, and traces."""
