"""Stored results: the whole file, a part of it, or nothing where the caller has it."""

import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from serve.http.jobs.result_download import download
from serve.problems import Problem
from tests.unit.serve.http.asgi import Exchange, http_scope
from tests.unit.serve.http.job_service import RESULT, make_job_service, slug
from tests.unit.serve.jobs.fake_jobs import FakeFiles, FakeJobs, make_job, stored


async def test_a_result_comes_with_its_headers(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    await jobs.succeed(job.id, RESULT)
    whole = client.get(f"/jobs/{job.id}/result")
    assert (whole.status_code, whole.content) == (200, RESULT)
    assert whole.headers["content-type"] == "video/mp4"
    assert (whole.headers["x-model"], whole.headers["x-seed"]) == ("wan2.6", "7")
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == ('"0123abcd"', "bytes")
    assert whole.headers["content-length"] == str(len(RESULT))
    head = client.head(f"/jobs/{job.id}/result")
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-type", "content-length", "etag", "accept-ranges", "x-model", "x-seed", "content-disposition")
    assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]
    assert len(jobs.files.reads) == 1  # HEAD reads nothing


async def test_a_part_of_a_result_has_those_bytes(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    await jobs.succeed(job.id, RESULT)
    part = client.get(f"/jobs/{job.id}/result", headers={"range": "bytes=1000-2999"})
    assert (part.status_code, part.content) == (206, RESULT[1000:3000])
    assert part.headers["content-range"] == f"bytes 1000-2999/{len(RESULT)}"
    assert part.headers["content-length"] == "2000"
    assert part.headers["x-model"] == "wan2.6"
    outside = client.get(f"/jobs/{job.id}/result", headers={"range": f"bytes={len(RESULT)}-"})
    assert (outside.status_code, slug(outside)) == (416, "range-not-satisfiable")
    assert outside.headers["content-range"] == f"bytes */{len(RESULT)}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-range": '"0123abcd"'}, 206),
        ({"if-range": '"another"'}, 200),
        ({"if-range": 'W/"0123abcd"'}, 200),
        ({"if-range": "Wed, 25 Nov 2026 22:00:00 GMT"}, 200),
        ({"if-none-match": '"0123abcd"'}, 304),
        ({"if-none-match": 'W/"0123abcd"'}, 304),
        ({"if-none-match": '"a", "0123abcd"'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"another"'}, 206),
        ({"if-match": '"0123abcd"'}, 206),
        ({"if-match": 'W/"0123abcd"'}, 412),
        ({"if-match": '"another"'}, 412),
    ],
)
async def test_conditions_decide_what_is_sent(jobs: FakeJobs, client: TestClient, headers: dict[str, str], status: int) -> None:
    job = jobs.add(make_job())
    await jobs.succeed(job.id, RESULT)
    response = client.get(f"/jobs/{job.id}/result", headers={"range": "bytes=0-9", **headers})
    assert response.status_code == status
    assert response.headers["etag"] == '"0123abcd"'
    bodies = {200: RESULT, 206: RESULT[:10], 304: b""}
    if status in bodies:
        assert response.content == bodies[status]


async def response_to(
    files: FakeFiles, data: bytes = RESULT, method: str = "GET", headers: dict[str, str] | None = None, **result: Any
) -> Response:
    """Return the response to a request for a result; ``result`` replaces what is stored of it."""
    request = Request(http_scope("/jobs/x/result", method, headers))
    return await download(request, files, stored(data, "x", **result))


@pytest.fixture
def files() -> FakeFiles:
    """The files, with a result of each size."""
    return FakeFiles({"results/x/1": RESULT, "results/empty/1": b""})


@pytest.mark.parametrize("result", [{"key": None}, {"key": "results/y/1"}])
async def test_a_result_that_is_not_kept_is_a_410_whatever_is_asked_for(files: FakeFiles, result: dict[str, Any]) -> None:
    for headers in ({}, {"if-none-match": "*"}, {"range": "bytes=0-1"}):
        with pytest.raises(Problem, match="no longer kept") as refused:
            await response_to(files, headers=headers, **result)
        assert (refused.value.status, refused.value.slug) == (410, "gone")


@pytest.mark.parametrize(("range_", "status"), [(None, 200), ("bytes=0-", 416), ("pages=1-2", 200)])
async def test_an_empty_result_is_sent_as_one(files: FakeFiles, range_: str | None, status: int) -> None:
    headers = {} if range_ is None else {"range": range_}
    if status == 416:
        with pytest.raises(Problem) as refused:
            await response_to(files, b"", headers=headers, key="results/empty/1")
        assert (refused.value.status, refused.value.headers["Content-Range"]) == (416, "bytes */0")
        return
    response = await response_to(files, b"", headers=headers, key="results/empty/1")
    exchange = Exchange()
    await response(http_scope(method="GET"), exchange.receive, exchange.send)
    assert (exchange.status, exchange.body, exchange.headers["content-length"]) == (200, b"", "0")


async def test_the_size_is_that_of_the_file_and_head_asks_for_the_whole(files: FakeFiles) -> None:
    response = await response_to(files, b"a record of another size", "HEAD", {"range": "bytes=0-9"})
    assert (response.status_code, response.headers["content-length"], response.body) == (200, str(len(RESULT)), b"")
    assert "content-range" not in response.headers
    assert files.reads == []


async def test_a_result_that_is_deleted_while_it_is_sent_breaks_off_and_the_log_says_so(
    jobs: FakeJobs, caplog: pytest.LogCaptureFixture
) -> None:
    """As files of a bucket do. The status is that of the answer that has begun."""
    job = jobs.add(make_job())
    await jobs.succeed(job.id, RESULT)

    async def read(key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        yield RESULT[:1000]
        raise FileNotFoundError(key)

    jobs.files.read = read  # type: ignore[method-assign]
    exchange = Exchange()
    for version in ("2.3", "2.4"):
        scope = {**http_scope(f"/jobs/{job.id}/result", "GET"), "client": ("testclient", 1), "asgi": {"spec_version": version}}
        with caplog.at_level(logging.INFO, "ray.serve"), pytest.raises(Problem, match="deleted while it was sent"):
            await make_job_service(jobs)(scope, exchange.receive, exchange.send)
        assert (exchange.status, exchange.body[-1000:]) == (200, RESULT[:1000])
    assert [(record.levelno, record.getMessage()[:8]) for record in caplog.records] == [(logging.INFO, "410 GET ")] * 2


@pytest.mark.parametrize("etag", ["0123abcd", '"0123abcd"'])
async def test_the_etag_is_quoted_once(files: FakeFiles, etag: str) -> None:
    assert (await response_to(files, method="HEAD", etag=etag)).headers["etag"] == '"0123abcd"'
    unchanged = await response_to(files, headers={"if-none-match": ' "x" , W/"0123abcd" '}, etag=etag)
    assert (unchanged.status_code, unchanged.body, files.reads) == (304, b"", [])
    assert {"etag", "cache-control"} <= set(unchanged.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if-match": "*"}, 200),
        ({"if-match": '"a", "0123abcd"'}, 200),
        ({"if-match": ""}, 412),
        ({"if-match": '"a"', "if-none-match": "*"}, 412),  # the first condition decides
        ({"if-match": "*", "if-none-match": "*"}, 304),
        ({"if-none-match": "0123abcd"}, 200),  # no tag without its quotes
    ],
)
async def test_conditions_are_checked_in_their_order(files: FakeFiles, headers: dict[str, str], status: int) -> None:
    if status == 412:
        with pytest.raises(Problem, match="If-Match") as refused:
            await response_to(files, headers=headers)
        assert (refused.value.status, refused.value.headers["ETag"]) == (412, '"0123abcd"')
    else:
        assert (await response_to(files, headers=headers)).status_code == status
    assert files.reads == []
