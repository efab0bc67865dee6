"""The pages for people: what they link to, and that they load nothing from elsewhere."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import PIL.Image
import pytest
from starlette.testclient import TestClient

from serve.config import AppConfig
from serve.http import pages
from serve.http.endpoints import make_endpoints
from serve.http.version import VERSION

ENDPOINTS = make_endpoints(AppConfig())
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and those that were not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note that the innermost element ends."""
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute in all elements."""
        return [attributes[name] for _, attributes in self.found if name in attributes]


def policy(client: TestClient, path: str) -> dict[str, list[str]]:
    """Return the sources that a page's Content-Security-Policy allows, by directive."""
    header = client.get(path, headers=BROWSER).headers["content-security-policy"]
    return {directive: sources for directive, *sources in (part.split() for part in header.split("; "))}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_well_formed_and_loads_nothing_from_other_hosts(client: TestClient, path: str) -> None:
    response = client.get(path, headers=BROWSER)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    elements = Elements(response.text)
    assert elements.open == []
    assert "$" not in re.sub(r"<style>.*?</style>", "", response.text, flags=re.DOTALL)
    for target in [*elements.values("href"), *elements.values("src")]:
        assert not re.match(r"(?!data:)[a-z]+:|//|/", target), target  # relative, so that a path prefix does not break it
    sources = {source for allowed in policy(client, path).values() for source in allowed}
    assert all(re.fullmatch(r"'[^']+'|data:|blob:", source) for source in sources), sources


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_policy_allows_the_inline_code_of_the_page_and_no_other(client: TestClient, path: str) -> None:
    text = client.get(path, headers=BROWSER).text
    allowed = policy(client, path)
    assert allowed["default-src"] == allowed["frame-ancestors"] == ["'none'"]
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        inline = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in inline]
        assert [source for source in allowed.get(directive, []) if source.startswith("'sha256")] == hashes
    assert "'unsafe-inline'" not in allowed.get("script-src", [])
    assert not re.search(r"\son\w+=", text)


def test_the_files_that_a_page_names_exist(client: TestClient) -> None:
    for page in ("/", "/docs"):
        elements = Elements(client.get(page, headers=BROWSER).text)
        for target in [*elements.values("href"), *elements.values("src")]:
            if not target.startswith("data:"):
                assert client.get(f"/{target.partition('#')[0]}").status_code == 200, target


def test_the_home_page_leads_to_each_endpoint_in_the_documentation(client: TestClient) -> None:
    text = client.get("/", headers=BROWSER).text
    document = client.get("/openapi.json").json()
    operations = {
        f"docs#/{tag}/{operation['operationId']}"
        for item in document["paths"].values()
        for operation in item.values()
        for tag in operation["tags"]
    }
    deep = [unquote(target) for target in Elements(text).values("href") if "#" in target]
    assert len(deep) == len(ENDPOINTS)
    assert set(deep) <= operations
    assert VERSION in text
    for endpoint in ENDPOINTS:
        assert f">{endpoint.paths[0]}</a>" in text
        assert endpoint.summary in text


def test_the_introduction_links_to_operations_that_exist(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    ids = {
        (operation["tags"][0], operation["operationId"]) for item in document["paths"].values() for operation in item.values()
    }
    links = re.findall(r"\]\(#/(\w+)/([\w-]+)\)", document["info"]["description"])
    assert links
    assert set(links) <= ids


def test_the_picture_is_small_and_its_place_is_kept(client: TestClient) -> None:
    (attributes,) = [attributes for tag, attributes in Elements(client.get("/", headers=BROWSER).text).found if tag == "img"]
    data = base64.b64decode(attributes["src"].partition(",")[2])
    image = PIL.Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("WEBP", (int(attributes["width"]), int(attributes["height"])))
    assert attributes["alt"]
    assert len(data) < 100_000


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER["accept"], "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/*", "text/html; charset=utf-8"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("text/plain", "application/json"),  # a load balancer's probe is never refused
    ],
)
def test_a_browser_gets_a_page_and_everyone_else_json(client: TestClient, accept: str, kind: str) -> None:
    response = client.get("/", headers={"accept": accept})
    assert (response.status_code, response.headers["content-type"], response.headers["vary"]) == (200, kind, "Accept")
    if kind == "application/json":
        assert response.json() == {"app": "ryla", "version": VERSION, "docs": "/docs"}


def test_every_format_of_a_result_has_a_name() -> None:
    assert {media_type for endpoint in ENDPOINTS for media_type in endpoint.media_types} <= set(pages.FORMATS)
    assert {path.name for path in Path(pages.__file__).parent.iterdir() if path.suffix != ".pyc" and path.is_file()} == {
        "__init__.py",
        "docs.html",
        "home.html",
        "overview.webp",
        "verify.html",
    }
