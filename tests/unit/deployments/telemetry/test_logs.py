"""Every line of a replica names the request and the job that it was written for."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from ray._common.formatters import JSONFormatter
from ray.serve._private.logging_utils import ServeContextFilter, ServeFormatter

from deployments.engine_threads import CancelFlag, EngineThreads
from deployments.telemetry import logs
from deployments.telemetry.origin import Origin, working_for


@pytest.fixture
def written() -> Iterator[StringIO]:
    """What Serve's logger writes as JSON, set up as in a replica."""
    serve = logging.getLogger(logs.SERVE)
    kept = (list(serve.handlers), list(serve.filters), serve.level)
    text = StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(ServeContextFilter())
    handler.setFormatter(JSONFormatter())
    serve.handlers[:] = [handler]
    serve.setLevel(logging.INFO)
    logs.name_origins()
    logs.name_origins()
    yield text
    serve.handlers[:], serve.filters[:] = kept[0], kept[1]
    serve.setLevel(kept[2])


def lines(text: StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


def test_a_line_has_the_request_and_the_job(written: StringIO) -> None:
    with working_for(Origin("the-request", "the-job")):
        logging.getLogger(logs.SERVE).info("hello %s", "world")
    logging.getLogger(logs.SERVE).info("alone")
    first, second = lines(written)
    assert (first["message"], first["request_id"], first["ryla_job_id"]) == ("hello world", "the-request", "the-job")
    assert "request_id" not in second
    assert "ryla_job_id" not in second


def test_our_modules_write_once_and_where_serve_does(written: StringIO) -> None:
    with working_for(Origin("the-request")):
        logging.getLogger("deployments.video.loras").warning("a LoRA")
        logging.getLogger("serve.jobs.store.sqlite_database").info("a store")
        logging.getLogger("serve.jobs.store.sqlite_database").debug("too much")
    assert [(line["message"], line["request_id"]) for line in lines(written)] == [
        ("a LoRA", "the-request"),
        ("a store", "the-request"),
    ]


async def test_the_thread_of_an_engine_writes_for_the_request_of_its_call(written: StringIO) -> None:
    threads = EngineThreads(1, 60)

    def work(_: CancelFlag) -> None:
        logging.getLogger("deployments.video.engine").info("in a thread")

    for name in ("one", "two"):
        with working_for(Origin(name, f"job-{name}")):
            await threads.run(work)
    assert [(line["request_id"], line["ryla_job_id"]) for line in lines(written)] == [("one", "job-one"), ("two", "job-two")]


def test_a_handler_that_serve_puts_in_later_names_them_too(written: StringIO) -> None:
    text = StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(ServeFormatter("Runner", "abc"))
    logging.getLogger(logs.SERVE).handlers[:] = [handler]
    with working_for(Origin("the-request", "the-job")):
        logging.getLogger(logs.SERVE).info("hello")
    assert " the-request -- hello" in text.getvalue()


def test_lines_of_other_threads_name_nothing(written: StringIO) -> None:
    with working_for(Origin("the-request")), ThreadPoolExecutor(1) as pool:
        pool.submit(logging.getLogger(logs.SERVE).info, "elsewhere").result()
    assert "request_id" not in lines(written)[0]
