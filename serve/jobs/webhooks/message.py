"""What a webhook says, and the signatures by which a receiver knows that it is ours."""

import json
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

from serve.jobs.store.record import Job

_PREFIX = "whsec_"
_TOLD = ("type", "title", "status", "detail", "instance")
"""The parts of a problem that a webhook repeats."""


class SecretsUnreadable(Exception):
    """The file of secrets cannot be read, or has a line that is not a secret."""


def payload(job: Job) -> bytes:
    """Return the body of the webhook of an ended job, in JSON.

    It says how the job ended and where its result is; nothing of the request is in it.
    """
    problem = None if job.problem is None else {name: job.problem[name] for name in _TOLD if name in job.problem}
    path = f"/jobs/{job.id}"
    data: dict[str, Any] = {
        "id": job.id,
        "state": job.state,
        "model": job.endpoint,
        "links": {"self": path, "events": f"{path}/events", "result": f"{path}/result"},
        "error": problem,
    }
    ended = datetime.fromtimestamp(job.finished_at or job.created_at, UTC)
    timestamp = ended.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": f"job.{job.state}", "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()


def signed_headers(message_id: str, body: bytes, secrets: Sequence[str], now: float) -> dict[str, str]:
    """Return the headers of one attempt, with one signature for each secret."""
    at = datetime.fromtimestamp(int(now), UTC)
    text = body.decode()
    signatures = [Webhook(secret).sign(message_id, at, text) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
        "content-type": "application/json",
    }


def read_secrets(path: Path) -> list[str]:
    """Return the secrets in a file, one `whsec_...` a line; `#` begins a comment.

    Raises SecretsUnreadable, whose message contains no part of a secret.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise SecretsUnreadable(f"{path} cannot be read: {type(e).__name__}") from None
    secrets = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if not _is_secret(text):
            raise SecretsUnreadable(
                f"{path}, line {number}: must be `{_PREFIX}` and 24 to 64 bytes in base64; "
                f'`echo "{_PREFIX}$(openssl rand -base64 32)"` makes one'
            )
        secrets.append(text)
    if not secrets:
        raise SecretsUnreadable(f"{path} contains no secret")
    return secrets


def _is_secret(text: str) -> bool:
    """Whether ``text`` is a secret of the size that Standard Webhooks ask for."""
    if not text.startswith(_PREFIX):
        return False
    try:
        return 24 <= len(b64decode(text.removeprefix(_PREFIX), validate=True)) <= 64
    except ValueError:
        return False
