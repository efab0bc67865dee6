"""The names of jobs' files in the file store."""

import re

REQUESTS, RESULTS, PREVIEWS = "requests", "results", "previews"
FOLDERS = (REQUESTS, RESULTS, PREVIEWS)
"""Every folder; below it, the first part of a name is the id of a job."""
_KEY = re.compile(rf"{REQUESTS}/([0-9a-f]{{32}})|(?:{RESULTS}|{PREVIEWS})/([0-9a-f]{{32}})/[0-9]+", re.ASCII)


def request_key(job_id: str) -> str:
    """Return the name of a job's request."""
    return f"{REQUESTS}/{job_id}"


def result_key(job_id: str, attempt: int) -> str:
    """Return the name of the result of an attempt.

    Each attempt has its own, so that one that was given up cannot overwrite the result.
    """
    return f"{RESULTS}/{job_id}/{attempt}"


def preview_key(job_id: str, attempt: int) -> str:
    """Return the name of the latest decoded frame of an attempt, a JPEG."""
    return f"{PREVIEWS}/{job_id}/{attempt}"


def job_of(key: str) -> str | None:
    """Return the id of the job whose file has this name, or None for a file of somebody else."""
    found = _KEY.fullmatch(key)
    return found and (found[1] or found[2])
