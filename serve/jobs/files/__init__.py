"""The files of jobs: requests, results and previews."""
