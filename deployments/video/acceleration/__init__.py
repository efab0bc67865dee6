"""Speed-ups that a caller chooses per request and that change the result."""
