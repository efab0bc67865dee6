"""What a replica does around its engine: it loads it, reports on it, and traces it."""
