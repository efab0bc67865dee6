"""The pages for people: those at `/`, `/docs` and `/verify`.

They load nothing from other hosts, which their Content-Security-Policy also forbids. The picture
`overview.webp` shows results of the demo for the examples of docs/http.md.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

import PIL.Image
from starlette.responses import HTMLResponse, Response

from serve.http.endpoints import Endpoint
from serve.http.openapi import operation_id
from serve.http.version import VERSION

FORMATS = {"image/gif": "GIF", "image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP", "video/mp4": "MP4"}
"""What people call the media types of results."""
_FOLDER = Path(__file__).parent


class Page:
    """A page whose Content-Security-Policy allows ``sources`` and the page's own inline code."""

    def __init__(self, html: str, **sources: str) -> None:
        self._html = html
        policy = {
            "default-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "script-src": _hashes_of("script", html),
            "style-src": _hashes_of("style", html),
        }
        for name, allowed in sources.items():
            directive = name.replace("_", "-")
            policy[directive] = f"{allowed} {policy.get(directive, '')}".strip()
        self._policy = "; ".join(f"{directive} {allowed}" for directive, allowed in policy.items() if allowed)

    def response(self) -> Response:
        """Return the page."""
        headers = {
            "Content-Security-Policy": self._policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(self._html, headers=headers)


def home_page(endpoints: Iterable[Endpoint]) -> Page:
    """Return the page at `/`: what the service is, its endpoints, and where to go on."""
    picture = (_FOLDER / "overview.webp").read_bytes()
    width, height = PIL.Image.open(io.BytesIO(picture)).size  # so that the page keeps its place
    html = _template("home.html").substitute(
        version=escape(VERSION),
        picture=f"data:image/webp;base64,{base64.b64encode(picture).decode()}",
        width=width,
        height=height,
        rows="\n".join(_row(endpoint) for endpoint in endpoints),
    )
    return Page(html, img_src="data:")


def docs_page() -> Page:
    """Return the page at `/docs`: Swagger UI, whose files are below `/docs/assets`."""
    return Page(
        _template("docs.html").substitute(),
        script_src="'self'",
        style_src="'self' 'unsafe-inline'",  # Swagger UI sets styles on its elements
        img_src="'self' data: blob:",
        media_src="blob:",
        connect_src="'self'",
    )


def verify_page() -> Page:
    """Return the page at `/verify`, which sends a file there and shows what comes back."""
    return Page(_template("verify.html").template, connect_src="'self'")


def _template(name: str) -> Template:
    return Template((_FOLDER / name).read_text())


def _row(endpoint: Endpoint) -> str:
    path = endpoint.paths[0]
    link = f"docs#/{endpoint.group}/{operation_id(path)}"
    cells = (
        f'<a href="{escape(link)}">{escape(path)}</a>',
        escape(endpoint.summary),
        ", ".join(FORMATS[media_type] for media_type in endpoint.media_types),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _hashes_of(element: str, html: str) -> str:
    """Return the hashes by which a policy allows the inline elements of one kind."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in contents)
