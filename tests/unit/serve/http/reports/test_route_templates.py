"""Paths by their templates: what logs, metrics and traces name, whatever callers ask for."""

import pytest

from serve.http.reports.route_templates import TEMPLATES, UNKNOWN, job_id_of, template_of
from tests.unit.serve.http.asgi import http_scope

JOB = "0123456789abcdef" * 2


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("root", ["", "/films"])
def test_every_template_is_that_of_its_paths(template: str, root: str) -> None:
    scope = {**http_scope(root + template.replace("{id}", JOB)), "root_path": root}
    assert template_of(scope) == template
    assert job_id_of(scope) == (JOB if "{id}" in template else "")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/jobs/",
        "//jobs",
        f"/jobs/{JOB}/",
        f"/jobs/{JOB}/result/more",
        f"/jobs//{JOB}/result",
        "/jobs//result",
        f"/JOBS/{JOB}",
        f"/v1/videos/{JOB}/contents",
        "/wan2.6/",
        "/wan2x6",
        "/docs/swagger-ui.css",
        "a prompt",
        "/jobs/{id}/x",
    ],
)
def test_any_other_path_is_unknown_and_names_no_job(path: str) -> None:
    scope = http_scope(path)
    assert (template_of(scope), job_id_of(scope)) == (UNKNOWN, "")


@pytest.mark.parametrize("name", ["a prompt", JOB[:-1], JOB + "0", JOB.upper(), JOB + "\n", "٣" * 32, "{id}", "..", "%2e"])
def test_what_cannot_be_the_id_of_a_job_is_not_repeated(name: str) -> None:
    scope = http_scope(f"/jobs/{name}/events")
    assert (template_of(scope), job_id_of(scope)) == ("/jobs/{id}/events", "")


def test_no_path_has_two_templates() -> None:
    assert len(set(TEMPLATES)) == len(TEMPLATES)
    assert UNKNOWN not in TEMPLATES
