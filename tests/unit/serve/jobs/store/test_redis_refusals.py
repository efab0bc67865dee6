"""What a Redis says that refuses: of each kind of error, and from a real server."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
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
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from serve.http.jobs.store_problems import store_problems
from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable
from serve.jobs.store.redis_refusals import refusal_of
from serve.jobs.store.redis_store import RedisStore
from serve.problems import Problem
from tests.unit.serve.jobs.redis_server import PROGRAM, RedisServer
from tests.unit.serve.jobs.samples import new_job


@pytest.mark.parametrize(
    ("error", "passes", "text", "told"),
    [
        (ReadOnlyError("x"), True, "is a replica, which takes no writes: name the primary (x)", "cannot write now"),
        (MasterDownError("x"), True, "is a replica that has lost its primary (x)", "cannot be reached"),
        (BusyLoadingError("x"), True, "is still loading its data (x)", "cannot be reached"),
        (ClusterDownError("x"), True, "node of a Redis Cluster, which is not supported", "cannot be reached"),
        (TryAgainError("x"), True, "node of a Redis Cluster", "cannot be reached"),
        (ResponseError("BUSY Redis is busy running a script."), True, "is busy with a script", "cannot be reached"),
        (ResponseError("NOREPLICAS Not enough good replicas"), True, "`min-replicas-to-write`", "cannot write now"),
        (RedisConnectionError("max number of clients reached"), True, "`maxclients`", "cannot be reached"),
        (OutOfMemoryError("x"), False, "The memory of Redis is full: raise `maxmemory`", "is full"),
        (ResponseError("MISCONF x"), False, "cannot save its data to its disk", "cannot write now"),
        (AuthenticationError("x"), False, "the password in `jobs.store_password_file` (x)", "its operator"),
        (AuthenticationWrongNumberOfArgsError("x"), False, "`jobs.store_password_file`", "its operator"),
        (AuthorizationError("x"), False, "`jobs.store_password_file`", "its operator"),
        (ExternalAuthProviderError("x"), False, "`jobs.store_password_file`", "its operator"),
        (NoPermissionError("x"), False, "does not permit the user of `jobs.store`", "its operator"),
        (MovedError("1 host:6379"), False, "node of a Redis Cluster", "its operator"),
        (AskError("1 host:6379"), False, "node of a Redis Cluster", "its operator"),
        (ClusterCrossSlotError("x"), False, "node of a Redis Cluster", "its operator"),
        (ResponseError("ERR unknown command"), False, "Redis refuses a call: ERR unknown command", "cannot be reached"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_refusal_says_whether_it_passes_what_to_do_and_what_callers_learn(
    error: Exception, passes: bool, text: str, told: str
) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.passes is passes
    assert text in refusal.text
    assert told in refusal.told


@pytest.mark.parametrize(
    "error",
    [RedisConnectionError("x"), MaxConnectionsError("x"), RedisTimeoutError("x"), OSError("x"), TimeoutError("x")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_without_an_answer_says_nothing_of_the_command(error: Exception) -> None:
    assert refusal_of(error) is None


def test_a_refusal_has_none_of_the_values_of_the_command() -> None:
    refusal = refusal_of(OutOfMemoryError("Command # 3 (HSET job record a secret) of pipeline caused error: used memory"))
    assert refusal is not None
    assert refusal.text.endswith("(used memory)")
    assert "secret" not in refusal.text


def test_an_aborted_transaction_has_the_reason_of_its_end() -> None:
    refusal = refusal_of(ExecAbortError("Transaction discarded because of: READONLY You can't write"))
    assert refusal is not None
    assert refusal.passes
    assert "name the primary" in refusal.text


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it starts."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store at that server, not opened."""
    store = RedisStore(server.url, patience_s=0.5)
    yield store
    await store.close()


async def refused(store: RedisStore) -> tuple[str, str]:
    """Return what the operator and the caller are told of a job that is not accepted."""
    with pytest.raises(Problem) as problem, store_problems():
        await store.create(new_job(), max_queued=9)
    assert problem.value.status == 503
    cause = problem.value.__cause__
    assert isinstance(cause, StoreUnavailable)
    assert not isinstance(cause, OutcomeUnknown)
    return str(cause), problem.value.detail


@pytest.mark.slow
async def test_a_primary_that_becomes_a_replica_refuses_new_jobs_and_shows_the_old(
    server: RedisServer, store: RedisStore
) -> None:
    server.start()
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    await store._client.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable, match="name the primary") as error:  # a transaction, not a script
        await store.take("runner", job.id)
    assert not isinstance(error.value, OutcomeUnknown)
    operator, caller = await refused(store)
    assert "You can't write against a read only replica" in operator
    assert caller == "the store of jobs cannot write now; try again"
    assert await store.get(job.id) == job
    await store._client.replicaof("NO", "ONE")
    assert await store.take("runner", job.id) is not None


@pytest.mark.slow
async def test_a_replica_without_its_primary_that_shows_no_old_data_is_unavailable(
    server: RedisServer, store: RedisStore
) -> None:
    server.start("--replica-serve-stale-data", "no")
    await store.open()
    await store._client.replicaof("127.0.0.1", 1)
    operator, caller = await refused(store)
    assert "lost its primary" in operator
    assert caller == "the store of jobs cannot be reached now; try again"


@pytest.mark.slow
async def test_a_server_whose_memory_is_full_refuses_new_jobs_and_goes_on_when_there_is_room(
    server: RedisServer, store: RedisStore
) -> None:
    server.start()
    await store.open()
    job = await store.create(new_job(), max_queued=9)
    await store._client.config_set("maxmemory", "1")
    operator, caller = await refused(store)
    assert "raise `maxmemory`" in operator
    assert caller == "the store of jobs is full; try again later"
    with pytest.raises(StoreUnavailable, match="raise `maxmemory`"):  # a transaction, not a script
        await store.take("runner", job.id)
    await store._client.config_set("maxmemory", "0")
    assert await store.take("runner", job.id) is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (["on", "resetpass", ">another", "~*", "+@all"], "`jobs.store_password_file`"),
        (["on", "nopass", "~*", "+@all", "-evalsha"], "does not permit the user"),
        (["on", "nopass", "resetkeys", "~other:*", "+@all"], "does not permit the user"),
    ],
    ids=["password", "command", "keys"],
)
async def test_a_user_who_may_not_do_what_the_service_needs_is_a_fault_of_the_settings(
    server: RedisServer, store: RedisStore, rules: list[str], says: str
) -> None:
    server.start()
    await store.open()
    await store._client.execute_command("ACL", "SETUSER", "default", *rules)
    await store._connection.client.connection_pool.disconnect()
    operator, caller = await refused(store)
    assert says in operator
    assert caller == "the store of jobs refuses the service; its operator must correct that"


@pytest.mark.slow
async def test_a_node_of_a_cluster_is_not_supported_and_says_so(server: RedisServer, store: RedisStore) -> None:
    server.start("--cluster-enabled", "yes")
    with pytest.raises(StoreUnavailable, match="Redis Cluster, which is not supported") as error:
        await store.open()
    assert not isinstance(error.value, OutcomeUnknown)


@pytest.mark.slow
async def test_a_server_with_too_many_clients_has_run_nothing(server: RedisServer, store: RedisStore) -> None:
    server.start("--maxclients", "1")
    other = RedisStore(server.url, patience_s=5)
    await other.open()
    operator, _ = await refused(store)
    assert "`maxclients`" in operator
    await other.close()
