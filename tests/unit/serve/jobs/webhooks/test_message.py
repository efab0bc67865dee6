"""The body and the signatures of a webhook."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from serve.jobs.webhooks.message import SecretsUnreadable, payload, read_secrets, signed_headers
from tests.unit.serve.jobs.webhook_receiver import NOW, SECRET, ended_job

OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def test_each_secret_signs_the_id_the_time_and_the_body() -> None:
    headers = signed_headers("msg_1", b'{"a":1}', [SECRET, OTHER], NOW + 0.9)
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == "1800000000"
    expected = [
        "v1,"
        + base64.b64encode(hmac.digest(base64.b64decode(secret[6:]), b'msg_1.1800000000.{"a":1}', hashlib.sha256)).decode()
        for secret in (SECRET, OTHER)
    ]
    assert headers["webhook-signature"] == " ".join(expected)


def test_the_example_of_standard_webhooks_has_its_signature() -> None:
    body = b'{"test": 2432232314}'
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", body, [SECRET], 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_body_says_how_a_job_ended_and_nothing_of_its_request() -> None:
    body = payload(ended_job("https://hooks.example.org/?token=t"))
    assert json.loads(body) == {
        "type": "job.succeeded",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "id": "0" * 32,
            "state": "succeeded",
            "model": "wan2.6",
            "links": {
                name: f"/jobs/{'0' * 32}{part}" for name, part in (("self", ""), ("events", "/events"), ("result", "/result"))
            },
            "error": None,
        },
    }


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_body_repeats_the_problem_but_not_the_fields_of_the_request(state: str) -> None:
    problem = {
        "type": "lost",
        "title": "t",
        "status": 502,
        "detail": "d",
        "instance": "urn:uuid:1",
        "errors": [{"value": "garden"}],
    }
    told = json.loads(payload(ended_job("https://hooks.example.org/", state=state, problem=problem)))
    assert told["type"] == f"job.{state}"
    assert told["data"]["error"] == {"type": "lost", "title": "t", "status": 502, "detail": "d", "instance": "urn:uuid:1"}


def test_secrets_are_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text(f"# new\n{SECRET}\n\n{OTHER}  # until June\n")
    assert read_secrets(file) == [SECRET, OTHER]


@pytest.mark.parametrize(
    "text", ["", "# none", "hunter2hunter2", "whsec_hunter2", "whsec_" + "A" * 200, SECRET + "\nwhsec_!hunter2"]
)
def test_a_malformed_file_of_secrets_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets"
    file.write_text(text)
    with pytest.raises(SecretsUnreadable) as refusal:
        read_secrets(file)
    assert "hunter2" not in str(refusal.value)


def test_a_file_of_secrets_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretsUnreadable, match="FileNotFoundError"):
        read_secrets(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SecretsUnreadable, match="UnicodeDecodeError"):
        read_secrets(tmp_path / "binary")
