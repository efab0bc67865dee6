"""The process that signs results and reads marks: ``python -m serve.provenance.worker ...``.

C2PA's library parses whole files, of which some come from callers. Here it has a budget of time and
memory, and if it crashes, it takes nothing else with it. The signing key is not in this process,
which asks its parent for the signature.
"""

import json
from collections.abc import Callable, Sequence

import c2pa
import numpy as np

from serve.media.errors import MediaError
from serve.media.spool import Spool
from serve.media.workers.messages import Message
from serve.media.workers.shared_array import Bytes
from serve.media.workers.worker import Answer, Ask, blaming_file, serve
from serve.provenance.manifest import c2pa_settings
from serve.provenance.reading import has_manifest, read_marks, read_source
from serve.provenance.report import complete
from serve.provenance.watermark_reading import WatermarkLimits, read_watermarks

MAX_REASON_CHARS = 300


class MarkSession:
    """Signs and reads one file in each request."""

    def answer(self, request: Message, files: Sequence[Spool], ask: Ask) -> Answer:
        """Do what the request's operation says, and return what came of it."""
        operation: Callable[[Message, Sequence[Spool], Ask], Answer] = getattr(self, request["operation"])
        return operation(request, files, ask)

    def sign(self, request: Message, files: Sequence[Spool], ask: Ask) -> Answer:
        """Write the first file, with a manifest, into the second; the others are ingredients."""
        signer = c2pa.Signer.from_callback(
            lambda data: bytes.fromhex(ask({"sign": data.hex()})["signature"]),
            c2pa.C2paSigningAlg[request["algorithm"].upper()],
            request["chain"]["pem"],
            request["timestamp_url"],
        )
        try:
            context = c2pa.Context.from_dict(c2pa_settings(request["hosts"]))
            builder = c2pa.Builder(request["manifest"], context=context)
            for definition, file in zip(request["ingredients"], files[2:], strict=True):
                with file.open() as source:
                    builder.add_ingredient(definition["definition"], definition["media_type"], source)
            with files[0].open() as source, open(files[1].file.fileno(), "r+b", closefd=False) as out:
                builder.sign(signer, request["media_type"], source, out)
        except c2pa.C2paError as error:
            return {"failed": str(error)[:MAX_REASON_CHARS]}, None
        return {}, None

    def find(self, request: Message, files: Sequence[Spool], _: Ask) -> Answer:
        """Say what marks a source carries that its result has to keep; the properties as JSON."""
        with blaming_file():
            manifest = request["manifest"] and has_manifest(files[0])
            return {"manifest": manifest}, _as_json(read_source(files[0]))

    def read(self, request: Message, files: Sequence[Spool], _: Ask) -> Answer:
        """Return the report on a file, as JSON, which can be longer than a message."""
        anchors = files[1].read().decode() if len(files) > 1 else None
        secrets = [bytes.fromhex(secret) for secret in request["watermark"]["secrets"]]
        with blaming_file():
            marks = read_marks(files[0], c2pa_settings(trust_anchors=anchors))
            if secrets:
                marks["watermark"] = _watermark(files[0], secrets, WatermarkLimits(pixels=request["watermark"]["max_pixels"]))
            return {}, _as_json(complete(marks))


def _as_json(value: object) -> Bytes:
    """Return a value as an array, since it can be longer than a message."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _watermark(media: Spool, secrets: Sequence[bytes], limits: WatermarkLimits) -> Message:
    """Return whether a file has watermarks of the secrets, and what they say, clearest first."""
    try:
        found = read_watermarks(media, secrets, limits)
    except MediaError as error:  # there are no frames that could have one
        return {"found": False, "reason": str(error)}
    if not found:
        return {"found": False}
    return {
        "found": True,
        "payload": str(found[0].payload),
        "key_id": found[0].payload.key_id,
        "false_positive_rate": found[0].false_positive_rate,
        "payloads": [str(reading.payload) for reading in found],
    }


if __name__ == "__main__":
    serve(MarkSession())
