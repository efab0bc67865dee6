"""What a replica's models run on, published in the cluster's key-value store.

The ingress reads it there without starting a replica.
"""

from ray import serve
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

_NAMESPACE = b"ryla"


def publish(text: str) -> None:
    """Store ``text`` for this replica's deployment; a replica calls it once its models are loaded.

    The text of the replica that started last replaces those of the others.
    """
    context = serve.get_replica_context()
    _internal_kv_put(_key(context.app_name, context.deployment), text.encode(), namespace=_NAMESPACE)


def read(app_name: str, deployment: str) -> str | None:
    """Return what a replica published, even if it has since gone; None if none ever did."""
    text = _internal_kv_get(_key(app_name, deployment), namespace=_NAMESPACE)
    return None if text is None else text.decode()


def _key(app_name: str, deployment: str) -> bytes:
    return f"hardware/{app_name}/{deployment}".encode()
