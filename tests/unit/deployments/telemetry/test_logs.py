"""Every line of a replica names the request and the job that it was written for."""

import importlib.util
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from ray._common.formatters import JSONFormatter
from ray.exceptions import RayTaskError
from ray.serve._private.logging_utils import ServeContextFilter, ServeFormatter

from deployments.engine_threads import CancelFlag, EngineThreads
from deployments.errors import CheckpointRefused, LoraNotUsable, NoFaceFound, RequestRefused
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


def fail(error: Exception) -> None:
    """Log an error that a call raised, as Serve's replica does."""
    try:
        raise error
    except Exception:
        logging.getLogger(logs.SERVE).exception(logs.FAILED)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("refusal", [LoraNotUsable, NoFaceFound, RequestRefused])
def test_a_refused_request_is_one_line_without_what_was_sent(
    written: StringIO, refusal: type[RequestRefused], wrapped: bool
) -> None:
    error: Exception = refusal("loras", "there is no LoRA `a secret`")
    if wrapped:
        error = RayTaskError("generate", "a secret", error).as_instanceof_cause()
    with working_for(Origin("the-request")):
        fail(error)
    (line,) = lines(written)
    assert (line["levelname"], line["request_id"]) == ("INFO", "the-request")
    assert line["message"] == f"the request was refused: {refusal.__name__} in `loras`"
    assert "secret" not in written.getvalue()
    assert "Traceback" not in written.getvalue()


def test_a_refused_request_is_left_out_with_other_lines_of_its_level(written: StringIO) -> None:
    logging.getLogger(logs.SERVE).setLevel(logging.WARNING)
    fail(LoraNotUsable("loras", "there is no LoRA `a secret`"))
    assert written.getvalue() == ""


@pytest.mark.parametrize("error", [ValueError("a fault"), CheckpointRefused("a fault"), RuntimeError("a fault")])
def test_a_fault_of_the_service_keeps_its_traceback(written: StringIO, error: Exception) -> None:
    fail(error)
    (line,) = lines(written)
    assert (line["levelname"], line["message"]) == ("ERROR", logs.FAILED)
    assert "Traceback" in str(line["exc_text"])


def test_serve_still_logs_a_failed_call_with_this_message() -> None:
    spec = importlib.util.find_spec("ray.serve._private.replica")
    assert spec is not None
    assert spec.origin is not None
    assert f'logger.exception("{logs.FAILED}")' in Path(spec.origin).read_text()


def test_lines_of_other_threads_name_nothing(written: StringIO) -> None:
    with working_for(Origin("the-request")), ThreadPoolExecutor(1) as pool:
        pool.submit(logging.getLogger(logs.SERVE).info, "elsewhere").result()
    assert "request_id" not in lines(written)[0]
