"""The table of routes: each method and path of the service, and which of them need no key.

The router, the OpenAPI document, the check of keys, logs and metrics read it. So does Serve's
proxy, which has no router.
"""

from enum import Enum, StrEnum
from typing import Literal

Method = Literal["GET", "POST", "DELETE"]
Key = Literal["key", "no key", "verify.open"]
"""Whether a route needs a key where keys are configured.

One with `verify.open` needs a key unless the setting `provenance.verify.open` is on.
"""


class EndpointName(StrEnum):
    """The name of each endpoint that makes something."""

    WAN26 = "wan2.6"
    WAN26_I2V = "wan2.6-i2v"
    WAN26_I2V_FACESWAP = "wan2.6-i2v-faceswap"
    WAN22_I2V = "wan22-i2v"
    WAN22_I2V_FACESWAP = "wan22-i2v-faceswap"
    IMAGE_FACESWAP = "image-faceswap"
    BATCH_VIDEO_FACESWAP = "batch-video-faceswap"


ALIASES = {EndpointName.BATCH_VIDEO_FACESWAP: ("/video-faceswap",)}
"""The further paths of endpoints that have any."""

ENDPOINTS = {name.value: (f"/{name}", *ALIASES.get(name, ())) for name in EndpointName}
"""The endpoints that make something, with their paths. Requests are POSTed there, with a key."""

DOCS_ASSETS = "/docs/assets"
"""The path below which the files of Swagger UI are, which need no key."""


class Row(Enum):
    """A route that is not an endpoint's: about jobs, in OpenAI's dialect, or about the service."""

    method: Method
    path: str
    """The template of its paths."""
    key: Key

    def __init__(self, method: Method, path: str, key: Key) -> None:
        self.method = method
        self.path = path
        self.key = key

    JOBS = ("GET", "/jobs", "key")
    JOB = ("GET", "/jobs/{id}", "key")
    DELETE_JOB = ("DELETE", "/jobs/{id}", "key")
    CANCEL_JOB = ("POST", "/jobs/{id}/cancel", "key")
    JOB_EVENTS = ("GET", "/jobs/{id}/events", "key")
    JOB_RESULT = ("GET", "/jobs/{id}/result", "key")
    JOB_PREVIEW = ("GET", "/jobs/{id}/preview", "key")

    CREATE_VIDEO = ("POST", "/v1/videos", "key")
    VIDEOS = ("GET", "/v1/videos", "key")
    VIDEO = ("GET", "/v1/videos/{id}", "key")
    DELETE_VIDEO = ("DELETE", "/v1/videos/{id}", "key")
    VIDEO_CONTENT = ("GET", "/v1/videos/{id}/content", "key")
    MODELS = ("GET", "/v1/models", "key")
    MODEL = ("GET", "/v1/models/{id}", "key")

    HEALTH = ("GET", "/health", "no key")
    HOME = ("GET", "/", "no key")
    HEALTHZ = ("GET", "/healthz", "no key")
    READYZ = ("GET", "/readyz", "no key")
    METRICS = ("GET", "/metrics", "key")
    LIMITS = ("GET", "/limits", "key")
    LORAS = ("GET", "/loras", "key")
    WARM = ("POST", "/warm", "key")
    VERIFY = ("POST", "/verify", "verify.open")
    VERIFY_PAGE = ("GET", "/verify", "no key")
    OPENAPI = ("GET", "/openapi.json", "no key")
    DOCS = ("GET", "/docs", "no key")
