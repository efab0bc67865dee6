"""What an error of Redis says about a command: whether it was refused, and whether that passes.

A refused command has changed nothing: Redis refuses before it writes, a script before its first
write, and a transaction as a whole. Everything else, such as a lost connection, says nothing of
what became of the command.
"""

from dataclasses import dataclass

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ExecAbortError,
    ExternalAuthProviderError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from serve.jobs.store.job_store import UNREACHABLE

_READ_ONLY = "cannot write now; try again"
_FULL = "is full; try again later"
_MISCONFIGURED = "refuses the service; its operator must correct that"


@dataclass(frozen=True)
class Refusal:
    """Why Redis has not run a command.

    ``passes`` is true where the same command may soon succeed without help, ``text`` is for the
    operator and ``told`` for callers.
    """

    passes: bool
    text: str
    told: str


_CLUSTER = "The server of `jobs.store` is a node of a Redis Cluster, which is not supported: name a server outside of one"
_PASSWORD = "Redis refuses the service: correct `jobs.store` or the password in `jobs.store_password_file`"
_REFUSALS = {
    "CLIENTS": Refusal(True, "Redis has as many connections as its `maxclients` allows", UNREACHABLE),
    "BUSY": Refusal(True, "Redis is busy with a script", UNREACHABLE),
    "CLUSTERDOWN": Refusal(True, _CLUSTER, UNREACHABLE),
    "CROSSSLOT": Refusal(False, _CLUSTER, _MISCONFIGURED),
    "LOADING": Refusal(True, "Redis is still loading its data", UNREACHABLE),
    "MASTERDOWN": Refusal(True, "The server of `jobs.store` is a replica that has lost its primary", UNREACHABLE),
    "MISCONF": Refusal(False, "Redis cannot save its data to its disk, and so takes no writes", _READ_ONLY),
    "MOVED": Refusal(False, _CLUSTER, _MISCONFIGURED),
    "NOAUTH": Refusal(False, _PASSWORD, _MISCONFIGURED),
    "NOPERM": Refusal(False, "Redis does not permit the user of `jobs.store` a command that the service needs", _MISCONFIGURED),
    "NOREPLICAS": Refusal(True, "Redis has fewer replicas than `min-replicas-to-write` requires", _READ_ONLY),
    "OOM": Refusal(False, "The memory of Redis is full: raise `maxmemory`, or keep jobs for a shorter time", _FULL),
    "READONLY": Refusal(True, "The server of `jobs.store` is a replica, which takes no writes: name the primary", _READ_ONLY),
    "TRYAGAIN": Refusal(True, _CLUSTER, UNREACHABLE),
}
"""By the word with which Redis begins an error, or one of ours."""
_CODES: tuple[tuple[type[RedisError], str], ...] = (
    (MasterDownError, "MASTERDOWN"),  # it is a ClusterDownError, too
    (AskError, "MOVED"),
    (AuthenticationError, "NOAUTH"),
    (AuthenticationWrongNumberOfArgsError, "NOAUTH"),
    (AuthorizationError, "NOAUTH"),
    (BusyLoadingError, "LOADING"),
    (ClusterCrossSlotError, "CROSSSLOT"),
    (ClusterDownError, "CLUSTERDOWN"),
    (ExternalAuthProviderError, "NOAUTH"),
    (NoPermissionError, "NOPERM"),
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (TryAgainError, "TRYAGAIN"),
)
_ABORTED = "because of: "
_IN_PIPELINE = " caused error: "


def refusal_of(error: Exception) -> Refusal | None:
    """Return why Redis refused a command, or None if the command may have been run."""
    said = _said(error)
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if code is None and said.startswith("max number of clients reached"):
        code = "CLIENTS"
    if code is None and isinstance(error, ResponseError):
        code = said.partition(" ")[0]
    if code is None:
        return None
    known = _REFUSALS.get(code)
    if known is None:
        return Refusal(False, f"Redis refuses a call: {said}", UNREACHABLE)
    return Refusal(known.passes, f"{known.text} ({said})", known.told)


def _said(error: Exception) -> str:
    """Return what Redis said, without the command that the client library puts before it.

    The command has values of a job. That of an aborted transaction is what aborted it.
    """
    said = str(error).rpartition(_IN_PIPELINE)[2]
    return said.rpartition(_ABORTED)[2] if isinstance(error, ExecAbortError) else said
