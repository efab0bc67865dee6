"""The result of a job, with its marks and the headers that describe it."""
