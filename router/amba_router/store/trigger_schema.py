"""The tables of schedules and queues. Every one has `project_id`: see `scoped`.

Times are Unix milliseconds; payloads are JSON text, kept as they were sent.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from amba_router.store.schema import metadata


def _project(*, primary_key: bool = False) -> Column[str]:
    owner = ForeignKey("projects.id", ondelete="CASCADE")
    return Column("project_id", Text, owner, nullable=False, primary_key=primary_key)


# --- queues (contract D.7, H-14) ---

queue_bindings = Table(
    "queue_bindings",
    metadata,
    _project(primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("batch_wait_ms", BigInteger, nullable=False),
    Column("consumers", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("backoff_ms", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
"""Who consumes a queue. `source` is `api`, or `file` for one that `amba.toml` declares."""

_LIVE = text("dead_ms IS NULL")
_DEAD = text("dead_ms IS NOT NULL")

queue_jobs = Table(
    "queue_jobs",
    metadata,
    Column("seq", Integer, primary_key=True),
    _project(),
    Column("id", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("owner", Text),
    Column("dead_ms", BigInteger),
    Column("reason", Text),
    Column("error", Text),
    UniqueConstraint("project_id", "id", name="queue_jobs_id"),
    Index(
        "queue_jobs_due",
        *("project_id", "queue", "due_ms", "seq"),
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    ),
    Index(
        "queue_jobs_dead",
        *("project_id", "queue", "dead_ms", "seq"),
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    ),
    Index("queue_jobs_owner", "owner", sqlite_where=text("owner IS NOT NULL")),
    sqlite_autoincrement=True,
)
"""Messages. A lease is an `owner` and a `due_ms` in the future: one that runs out is due again.

`generation` counts leases: who settles a message names the one it holds. `attempts` are
deliveries that were begun, `failures` those that ended badly while we watched. `dead_ms` is set
for dead letters, with the `reason` (`reason` of contract D.7's rules) and the last `error`, which
a message that waits for its next attempt has as well.
"""

queue_keys = Table(
    "queue_keys",
    metadata,
    _project(primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("queue_keys_created", "created_ms"),
)
"""Idempotency keys, for 24 hours."""

# --- schedules (contract D.6, H-13) ---

schedules = Table(
    "schedules",
    metadata,
    Column("seq", Integer, primary_key=True),
    _project(),
    Column("id", Text, nullable=False),
    Column("function", Text, nullable=False),
    Column("cron", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("missed", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id", name="schedules_id"),
    UniqueConstraint("project_id", "function", "cron", "timezone", name="schedules_slot"),
    sqlite_autoincrement=True,
)
"""`missed` is `skip` or `run_once`; `source` is `api`, `deploy` or `file`."""

schedule_slots = Table(
    "schedule_slots",
    metadata,
    _project(primary_key=True),
    Column("schedule_id", Text, primary_key=True),
    Column("slot_ms", BigInteger, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("outcome", Text),
    Column("error", Text),
    Column("request_id", Text),
)
"""A row is the right to fire one slot: whoever adds it fires, nobody else can.

The newest of each schedule are kept as its history; `ended_ms` NULL is under way, or was cut off
with its owner.
"""

TRIGGERS = ("queue_bindings", "queue_jobs", "queue_keys", "schedules", "schedule_slots")
"""Their names; each has `project_id`."""
