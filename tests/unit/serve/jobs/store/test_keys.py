"""The names of jobs' files, and the jobs that the names belong to."""

import pytest

from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.store.keys import FOLDERS, job_of, preview_key, request_key, result_key
from serve.jobs.store.record import new_job_id

JOB = "0123456789abcdef" * 2


def test_each_file_is_found_by_its_folder_and_names_its_job() -> None:
    job_id = new_job_id()
    keys = [request_key(job_id), result_key(job_id, 1), result_key(job_id, 12), preview_key(job_id, 1)]
    assert len(set(keys)) == len(keys)
    assert {key.partition("/")[0] for key in keys} == set(FOLDERS)
    assert {job_of(key) for key in keys} == {job_id}


@pytest.mark.parametrize(
    "key",
    [
        "", "requests", "requests/", f"requests/{JOB}/1", f"requests/{JOB}.part", f"requests/{JOB[1:]}", f"requests/{JOB}0",
        f"requests/{JOB.upper()}", f"requests/{JOB}\n", f"results/{JOB}", f"results/{JOB}/", f"results/{JOB}/1/2",
        f"results/{JOB}/-1", f"results/{JOB}/\u0661", f"results/{JOB}/one", f"models/{JOB}/1", f"/results/{JOB}/1",
        f"old/results/{JOB}/1",
    ],
)  # fmt: skip
def test_a_file_of_somebody_else_belongs_to_no_job(key: str) -> None:
    """The sweeper deletes the files of jobs that are gone, and must not touch any other."""
    assert job_of(key) is None


async def test_every_store_of_files_takes_the_names() -> None:
    files = FsspecFiles(f"memory://{new_job_id()}")
    keys = [request_key(JOB), result_key(JOB, 1), preview_key(JOB, 20)]
    for key in keys:
        await files.put(key, key.encode())
    assert sorted([key for folder in FOLDERS for key, _ in await files.list(folder)]) == sorted(keys)
    files.close()
