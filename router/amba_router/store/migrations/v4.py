"""From 3 (the emulated services) to 4: the tables of schedules and queues."""

from __future__ import annotations

from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Adds tables; what was there is not touched."""
    for statement in _STATEMENTS:
        op.execute(statement)


_STATEMENTS = (
    """
    CREATE TABLE queue_bindings (
      project_id TEXT NOT NULL,
      queue TEXT NOT NULL,
      id TEXT NOT NULL,
      function TEXT NOT NULL,
      status TEXT NOT NULL,
      batch_size INTEGER NOT NULL,
      batch_wait_ms BIGINT NOT NULL,
      consumers INTEGER NOT NULL,
      retries INTEGER NOT NULL,
      backoff_ms BIGINT NOT NULL,
      source TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      PRIMARY KEY (project_id, queue),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE queue_jobs (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      queue TEXT NOT NULL,
      payload TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      due_ms BIGINT NOT NULL,
      attempts INTEGER NOT NULL,
      failures INTEGER NOT NULL,
      generation INTEGER NOT NULL,
      owner TEXT,
      dead_ms BIGINT,
      reason TEXT,
      error TEXT,
      CONSTRAINT queue_jobs_id UNIQUE (project_id, id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX queue_jobs_dead"
    " ON queue_jobs (project_id, queue, dead_ms, seq)"
    " WHERE dead_ms IS NOT NULL",
    "CREATE INDEX queue_jobs_due"
    " ON queue_jobs (project_id, queue, due_ms, seq)"
    " WHERE dead_ms IS NULL",
    "CREATE INDEX queue_jobs_owner ON queue_jobs (owner) WHERE owner IS NOT NULL",
    """
    CREATE TABLE queue_keys (
      project_id TEXT NOT NULL,
      queue TEXT NOT NULL,
      "key" TEXT NOT NULL,
      job_id TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      PRIMARY KEY (project_id, queue, "key"),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX queue_keys_created ON queue_keys (created_ms)",
    """
    CREATE TABLE schedules (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      function TEXT NOT NULL,
      cron TEXT NOT NULL,
      timezone TEXT NOT NULL,
      missed TEXT NOT NULL,
      source TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      CONSTRAINT schedules_id UNIQUE (project_id, id),
      CONSTRAINT schedules_slot UNIQUE (project_id, function, cron, timezone),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE schedule_slots (
      project_id TEXT NOT NULL,
      schedule_id TEXT NOT NULL,
      slot_ms BIGINT NOT NULL,
      owner TEXT NOT NULL,
      began_ms BIGINT NOT NULL,
      ended_ms BIGINT,
      outcome TEXT,
      error TEXT,
      request_id TEXT,
      PRIMARY KEY (project_id, schedule_id, slot_ms),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
)
