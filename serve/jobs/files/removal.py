"""Removes the files of jobs."""

from serve.jobs.files.file_store import FileStore
from serve.jobs.store.keys import FOLDERS, preview_key, request_key, result_key
from serve.jobs.store.record import Job


async def remove_files(files: FileStore, job_id: str) -> None:
    """Delete every file of a job."""
    await files.delete(request_key(job_id))
    for folder in FOLDERS:
        await files.delete_all(f"{folder}/{job_id}")


async def remove_leftovers(files: FileStore, job: Job) -> None:
    """Delete what an ended job no longer needs: all of its files but its result."""
    keys = [request_key(job.id)]
    if job.progress.preview:
        keys.append(preview_key(job.id, job.attempt))
    if job.attempt and job.result is None:  # one may have been written before the end came
        keys.append(result_key(job.id, job.attempt))
    for attempt in range(1, job.attempt):
        keys += [preview_key(job.id, attempt), result_key(job.id, attempt)]
    for key in keys:
        await files.delete(key)
