"""Removes the files of jobs."""

from serve.jobs.files.file_store import FileStore
from serve.jobs.store.keys import FOLDERS, request_key


async def remove_files(files: FileStore, job_id: str) -> None:
    """Delete every file of a job."""
    await files.delete(request_key(job_id))
    for folder in FOLDERS:
        await files.delete_all(f"{folder}/{job_id}")
