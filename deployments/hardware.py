"""What a replica's models run on, told where the ingress can read it without waking anybody: in the cluster's key-value store."""

from ray import serve
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

_NAMESPACE = b"ryla"


def publish(text: str) -> None:
    """Called by a replica when its models are loaded; of several replicas of a deployment the last one stands."""
    context = serve.get_replica_context()
    _internal_kv_put(_key(context.app_name, context.deployment), text.encode(), namespace=_NAMESPACE)


def read(app_name: str, deployment: str) -> str | None:
    """What was published, perhaps by a replica that is gone."""
    text = _internal_kv_get(_key(app_name, deployment), namespace=_NAMESPACE)
    return None if text is None else text.decode()


def _key(app_name: str, deployment: str) -> bytes:
    return f"hardware/{app_name}/{deployment}".encode()
