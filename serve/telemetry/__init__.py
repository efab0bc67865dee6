"""What the service tells of its work: its metrics, how they are read, and its log lines."""
