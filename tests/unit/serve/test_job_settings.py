"""Settings of jobs that cannot work, or would be unsafe, are refused with the remedy."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve.config import AppConfig
from serve.job_settings import JobSettings

SHARED = {"files": "s3://bucket/ryla"}
HOOKS = {"hosts": ["hooks.example.org"], "secret_file": "/keys"}


@pytest.mark.parametrize(
    "jobs",
    [
        {},
        {"folder": "/data/jobs", "files": "file:///shared/ryla"},
        {"store": "redis://redis:6379/1", "store_password_file": "/run/secrets/redis", **SHARED},
        {"store": "rediss://ryla@redis.example.org?ssl_ca_certs=/etc/ca.pem", **SHARED},
        {"webhooks": {"hosts": ["hooks.example.org", "*.example.com"], "secret_file": "/keys"}},
        {"webhooks": {**HOOKS, "max_hours": 1.388}, "keep_s": 5000},
        {"keep_s": 60},
        {"webhooks": {"private_hosts": ["hooks.internal", "10.0.0.5", "fd00::5"], "secret_file": "/keys"}},
    ],
)
def test_settings_of_jobs_that_work_together_are_accepted(jobs: dict[str, Any]) -> None:
    JobSettings.model_validate(jobs)


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ({"store": "sqlite"}, "must be `embedded` or a URL such as"),
        ({"store": "http://redis", **SHARED}, "must be `embedded` or a URL such as"),
        ({"store": "redis://", **SHARED}, "must be `embedded` or a URL such as"),
        ({"store": "redis://redis/jobs", **SHARED}, "`jobs` is not the number of a database"),
        ({"store": "redis://redis:6379/1"}, "set files to a URL"),
        ({"store_password_file": "/keys"}, "store_password_file has no effect on an embedded store"),
        ({"files": "/shared"}, "must be a URL such as"),
        ({"webhooks": {"hosts": ["a.example"]}}, "set secret_file"),
        ({"webhooks": {"private_hosts": ["a.example"]}}, "set secret_file"),
        ({"keep_s": 5000, "webhooks": HOOKS}, r"set keep_s to 86400 at least, or webhooks\.max_hours to 1\.388 at most"),
        ({"webhooks": {**HOOKS, "max_hours": 25}}, r"set keep_s to 90000 at least"),
        ({"lease_s": 1}, "greater than or equal to 3"),
    ],
)
def test_settings_of_jobs_that_cannot_work_are_refused(jobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JobSettings.model_validate(jobs)


@pytest.mark.parametrize(
    "jobs",
    [
        {"store": "redis://:hunter2@redis:6379/1", **SHARED},
        {"store": "rediss://ryla:hunter2@redis", **SHARED},
        {"store": "redis://redis/1?password=hunter2", **SHARED},
        {"files": "sftp://ryla:hunter2@files/ryla"},
    ],
)
def test_no_password_stands_in_a_url_and_none_in_the_message(jobs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has a password") as refusal:
        AppConfig.model_validate({"jobs": jobs})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "host",
    ["", "*", "*.", "https://a.example", "a.example:443", "a.example/x", "A.example", "a..example", "-a.example", "ä.example"],
)
@pytest.mark.parametrize("setting", ["hosts", "private_hosts"])
def test_a_host_of_webhooks_is_a_name_and_nothing_else(setting: str, host: str) -> None:
    with pytest.raises(ValidationError, match="is not a host name in lower case"):
        JobSettings.model_validate({"webhooks": {setting: [host], "secret_file": "/keys"}})


def test_a_private_host_is_named_exactly() -> None:
    with pytest.raises(ValidationError, match="is not a host name in lower case"):
        JobSettings.model_validate({"webhooks": {"private_hosts": ["*.internal"], "secret_file": "/keys"}})


def test_each_slot_has_a_number_of_jobs_and_a_setting_changes_one() -> None:
    slots = JobSettings.model_validate({"slots": {"wan22_gguf": 9}}).slots.by_name()
    assert slots == {"wan26": 4, "wan22-gguf": 9, "image-swap": 16, "film-swap": 4}


def test_the_folder_is_below_the_home_of_the_user() -> None:
    assert JobSettings().local_folder == Path.home() / ".local/state/ryla/jobs"
