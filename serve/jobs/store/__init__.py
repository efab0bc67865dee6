"""The records of jobs, in SQLite or Redis."""
