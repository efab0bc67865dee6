"""The tables of the SQLite store, and the rows of its jobs."""

from collections.abc import Sequence
from sqlite3 import Connection

from serve.jobs.store import transitions
from serve.jobs.store.encoding import decode, encode, encode_event
from serve.jobs.store.job_store import PACE_JOBS
from serve.jobs.store.record import Job
from serve.jobs.store.turns import Waiting

SCHEMA_VERSION = 2
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
)
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
            " expires_at = :expires_at, webhook_due_at = :due_at, last_event = :last, record = :record WHERE number = :number",
            vars(job)
            | {
                "number": self.number,
                "ended": job.ended,
                "due_at": transitions.webhook_due_at(job),
                "last": last,
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
