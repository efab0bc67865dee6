"""The tables of the SQLite store, and the rows of its jobs."""

from collections.abc import Sequence
from sqlite3 import Connection

from serve.jobs.store import transitions
from serve.jobs.store.encoding import decode, encode, encode_event
from serve.jobs.store.job_store import PACE_JOBS
from serve.jobs.store.limits import ALL_KEPT, KeptFull, Limits, QueueFull, ServiceFull, StorageFull
from serve.jobs.store.record import Job
from serve.jobs.store.turns import Waiting

SCHEMA_VERSION = 3
_KEPT = (
    # How many bytes of files the jobs of each caller keep. The triggers count whoever changes a
    # job, another release included.
    "CREATE TABLE usage (caller TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX jobs_kept ON jobs (caller, expires_at) WHERE kept > 0 AND ended = 1",
    "CREATE INDEX jobs_queued ON jobs (number) WHERE state = 'queued'",
    """CREATE TRIGGER kept_by_a_new_job AFTER INSERT ON jobs WHEN NEW.kept > 0 BEGIN
        INSERT INTO usage VALUES (NEW.caller, NEW.kept) ON CONFLICT DO UPDATE SET bytes = bytes + NEW.kept;
    END""",
    """CREATE TRIGGER kept_by_a_changed_job AFTER UPDATE OF kept ON jobs WHEN NEW.kept <> OLD.kept BEGIN
        INSERT INTO usage VALUES (NEW.caller, NEW.kept - OLD.kept)
        ON CONFLICT DO UPDATE SET bytes = bytes + NEW.kept - OLD.kept;
        DELETE FROM usage WHERE caller = NEW.caller AND bytes <= 0;
    END""",
    """CREATE TRIGGER kept_by_a_deleted_job AFTER DELETE ON jobs WHEN OLD.kept > 0 BEGIN
        UPDATE usage SET bytes = bytes - OLD.kept WHERE caller = OLD.caller;
        DELETE FROM usage WHERE caller = OLD.caller AND bytes <= 0;
    END""",
)
SCHEMA = (
    # `number` is never used again, so that turns and cursors keep their order.
    """CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        caller TEXT NOT NULL,
        slot TEXT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        beat INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        idempotency_key TEXT,
        expires_at REAL NOT NULL,
        webhook_due_at REAL,
        last_event INTEGER NOT NULL,
        kept INTEGER NOT NULL DEFAULT 0,
        record TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX jobs_by_key ON jobs (caller, idempotency_key) WHERE idempotency_key IS NOT NULL",
    "CREATE INDEX jobs_by_caller ON jobs (caller, number)",
    "CREATE INDEX jobs_by_state ON jobs (caller, state, number)",
    "CREATE INDEX jobs_active ON jobs (slot, number) WHERE ended = 0",
    "CREATE INDEX jobs_by_expiry ON jobs (expires_at) WHERE ended = 1",
    "CREATE INDEX jobs_by_webhook ON jobs (webhook_due_at) WHERE webhook_due_at IS NOT NULL",
    """CREATE TABLE events (
        number INTEGER NOT NULL, id INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (number, id)
    ) WITHOUT ROWID""",
    # The callers that have had a turn in this round; see serve.jobs.store.turns.
    "CREATE TABLE served (slot TEXT NOT NULL, caller TEXT NOT NULL, PRIMARY KEY (slot, caller)) WITHOUT ROWID",
    # How long the latest jobs of a slot took.
    "CREATE TABLE taken (number INTEGER PRIMARY KEY, slot TEXT NOT NULL, seconds REAL NOT NULL)",
    "CREATE INDEX taken_by_slot ON taken (slot, number)",
    "CREATE TABLE deleted (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, caller TEXT NOT NULL, at REAL NOT NULL)",
    """CREATE TABLE spent (
        minute INTEGER NOT NULL, caller TEXT NOT NULL, requests INTEGER NOT NULL, PRIMARY KEY (minute, caller)
    ) WITHOUT ROWID""",
    *_KEPT,
)
MIGRATIONS = {
    # The sizes of the requests of jobs that have not ended are not in such a store.
    2: (
        "ALTER TABLE jobs ADD COLUMN kept INTEGER NOT NULL DEFAULT 0",
        *_KEPT,
        "UPDATE jobs SET kept = json_extract(record, '$.result.size')"
        " WHERE ended = 1 AND json_extract(record, '$.result.key') IS NOT NULL",
    ),
}
"""What makes of each schema version the next one."""
MAX_EVENTS = 10_000
"""The latest events of a job that are kept."""


class Row:
    """A job in the file."""

    def __init__(self, number: int, last_event: int, job: Job) -> None:
        self.number = number
        self.last_event = last_event
        self.job = job

    def write(self, connection: Connection, job: Job, *, events: Sequence[Job]) -> None:
        """Replace the job by ``job``, and add ``events``."""
        last = self.last_event + len(events)
        connection.execute(
            "UPDATE jobs SET state = :state, owner = :owner, attempt = :attempt, beat = :beat, ended = :ended,"
            " expires_at = :expires_at, webhook_due_at = :due_at, last_event = :last, kept = :kept, record = :record"
            " WHERE number = :number",
            vars(job)
            | {
                "number": self.number,
                "ended": job.ended,
                "due_at": transitions.webhook_due_at(job),
                "last": last,
                "kept": job.kept_bytes,
                "record": encode(job),
            },
        )
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?)",
            [(self.number, number, encode_event(event)) for number, event in enumerate(events, self.last_event + 1)],
        )
        if (seconds := transitions.seconds_taken(self.job, job)) is not None:
            connection.execute("INSERT INTO taken (slot, seconds) VALUES (?, ?)", (job.slot, seconds))
            connection.execute(
                "DELETE FROM taken WHERE slot = :slot AND number <="
                " (SELECT number FROM taken WHERE slot = :slot ORDER BY number DESC LIMIT 1 OFFSET :kept)",
                {"slot": job.slot, "kept": PACE_JOBS},
            )
        if last > MAX_EVENTS:
            connection.execute("DELETE FROM events WHERE number = ? AND id <= ?", (self.number, last - MAX_EVENTS))


def find(connection: Connection, job_id: str) -> Row | None:
    """Return the row of a job, or None."""
    row = connection.execute("SELECT number, last_event, record, beat FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return row and Row(row[0], row[1], decode(row[2], beat=row[3]))


def check_room(connection: Connection, job: Job, *, max_queued: int, limits: Limits) -> None:
    """Raise what ``JobStore.create`` raises if there is no room for ``job``."""

    def number(query: str, *values: object) -> int:
        return int(connection.execute(query, values).fetchone()[0])

    queued = number("SELECT count(*) FROM jobs WHERE caller = ? AND state = 'queued'", job.caller)
    if queued >= max_queued:
        raise QueueFull(queued)
    if job.kept_bytes and limits.max_kept_of_caller is not None:
        kept = number("SELECT total(bytes) FROM usage WHERE caller = ?", job.caller)
        if kept + job.kept_bytes > limits.max_kept_of_caller:
            query = "SELECT min(expires_at) FROM jobs WHERE caller = ? AND kept > 0 AND ended = 1"
            raise KeptFull(kept, limits.max_kept_of_caller, connection.execute(query, (job.caller,)).fetchone()[0])
    if limits.max_queued is not None:
        queued = number("SELECT count(*) FROM jobs WHERE state = 'queued'")
        if queued >= limits.max_queued:
            raise ServiceFull(queued)
    if job.kept_bytes and limits.max_kept is not None:
        kept = number("SELECT total(bytes) FROM usage")
        if kept + job.kept_bytes > limits.max_kept:
            raise StorageFull(ALL_KEPT)


def waiting_jobs(connection: Connection, slot: str) -> list[tuple[Waiting, str]]:
    """Return the jobs of ``slot`` that have not ended, each with its owner."""
    rows = connection.execute("SELECT id, caller, number, state, owner FROM jobs WHERE ended = 0 AND slot = ?", (slot,))
    return [
        (Waiting(id=job_id, caller=caller, slot=slot, number=number, running=state != "queued"), owner)
        for job_id, caller, number, state, owner in rows
    ]


def served_callers(connection: Connection, slot: str) -> frozenset[str]:
    """Return the callers of ``slot`` that have had a turn in this round."""
    return frozenset(caller for (caller,) in connection.execute("SELECT caller FROM served WHERE slot = ?", (slot,)))


def pace_of(connection: Connection, slot: str) -> float | None:
    """Return the mean time that the latest jobs of ``slot`` took, in seconds."""
    (seconds,) = connection.execute("SELECT avg(seconds) FROM taken WHERE slot = ?", (slot,)).fetchone()
    return None if seconds is None else float(seconds)
