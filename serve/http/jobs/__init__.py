"""The routes of jobs: submission, records, events and results."""
