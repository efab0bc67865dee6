"""The watermarks of jobs: what each says, which follows from the request alone."""

import hashlib
import hmac
import json
import logging
from typing import Any

from serve.jobs.request import JobRequest
from serve.media.spool import Media, media_pieces
from serve.pipelines.requests import GenerateVideo
from serve.provenance.watermark import Payload, Watermark
from serve.provenance.watermark.payload import REQUEST_BITS
from serve.provenance.watermark.secret import load_secret
from serve.provenance_settings import WatermarkSettings
from serve.telemetry.metrics import record_provenance_failure

logger = logging.getLogger("ray.serve")


class Watermarking:
    """Makes watermarks with the secret of the settings; raises ``SecretRefused`` for a bad one."""

    def __init__(self, settings: WatermarkSettings) -> None:
        self.enabled = settings.enabled
        self._key_id = settings.key_id
        self._secret = load_secret(settings.key) if settings.enabled else b""

    def payload_of(self, request: JobRequest, seed: int | None) -> Payload:
        """Return what the watermark of a request's result says.

        The request's number is a keyed hash of all that decides about the pixels: equal requests
        with equal seeds have equal results, and nobody else can tell what was asked from it. A LoRA
        of scale 0, and that a size was lowered to what it is, decide about nothing.
        """
        keyed = hmac.new(self._secret, digestmod=hashlib.sha256)
        fields = {name: getattr(request.request, name) for name in type(request.request).model_fields}
        if isinstance(request.request, GenerateVideo):
            fields |= {"loras": [choice for choice in request.request.loras if choice[1] != 0], "adjusted": []}
        hashed = {"endpoint": request.endpoint, "model": request.model, "seed": seed, "fields": fields}
        keyed.update(json.dumps(_as_json(hashed), sort_keys=True).encode())
        return Payload(self._key_id, int.from_bytes(keyed.digest()) >> 256 - REQUEST_BITS)

    def of(self, payload: Payload) -> "JobWatermark":
        """Return what makes the watermarks of a job's files."""
        return JobWatermark(payload, self._secret)


class JobWatermark:
    """Makes the watermark for each file of one job, and knows whether the latest could hold it."""

    def __init__(self, payload: Payload, secret: bytes) -> None:
        self._payload = payload
        self._secret = secret
        self._latest: Watermark | None = None

    def __call__(self) -> Watermark:
        """Return the watermark for one file."""
        self._latest = Watermark(self._payload, self._secret)
        return self._latest

    @property
    def held(self) -> bool:
        """Whether frames of the latest file were large and varied enough to hold the watermark."""
        return self._latest is not None and self._latest.held

    @property
    def said(self) -> str:
        """What `X-Provenance` says about the latest file."""
        return "watermark" if self.held else "watermark=failed"

    def claim(self, request_id: str) -> str:
        """Return what `X-Provenance` says about the latest file; count one without a watermark."""
        if not self.held:
            logger.warning("request %s: no frame is large and varied enough to hold the watermark", request_id)
            record_provenance_failure("watermark")
        return self.said

    def apart(self) -> "JobWatermark":
        """Return one for files that are not the result, such as previews."""
        return JobWatermark(self._payload, self._secret)


def _as_json(value: Any) -> Any:
    """Return ``value`` as JSON has it, with the SHA-256 of each file instead of the file."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"sha256": _digest(value)}


def _digest(media: Media) -> str:
    digest = hashlib.sha256()
    for piece in media_pieces(media):
        digest.update(piece)
    return digest.hexdigest()
