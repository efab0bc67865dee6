"""What docs/performance.md quotes, each a command."""
