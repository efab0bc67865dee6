"""How long a job is going to wait and to take."""
