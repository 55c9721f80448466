"""From 2 (the control plane) to 3: the tables of the emulated services."""

from __future__ import annotations

from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Adds tables; what was there is not touched."""
    for statement in _STATEMENTS:
        op.execute(statement)


_STATEMENTS = (
    """
    CREATE TABLE ai_prompts (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      name TEXT NOT NULL,
      provider TEXT NOT NULL,
      model TEXT NOT NULL,
      system TEXT,
      template TEXT NOT NULL,
      options TEXT NOT NULL,
      client_invokable BOOLEAN NOT NULL,
      budget_usd FLOAT,
      spent_usd FLOAT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      CONSTRAINT ai_prompts_name UNIQUE (project_id, name),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE ai_providers (
      project_id TEXT NOT NULL,
      name TEXT NOT NULL,
      sealed BLOB NOT NULL,
      preview TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      PRIMARY KEY (project_id, name),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE app_users (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      email TEXT,
      email_key TEXT,
      password TEXT,
      display_name TEXT,
      avatar_url TEXT,
      external_id TEXT,
      anonymous_id TEXT,
      auth_providers TEXT NOT NULL,
      properties TEXT NOT NULL,
      timezone TEXT,
      first_seen_ms BIGINT NOT NULL,
      last_seen_ms BIGINT NOT NULL,
      CONSTRAINT app_users_id UNIQUE (project_id, id),
      CONSTRAINT app_users_email UNIQUE (project_id, email_key),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX app_users_seen ON app_users (project_id, last_seen_ms)",
    """
    CREATE TABLE audit_events (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      developer_id TEXT NOT NULL,
      user_id TEXT,
      name TEXT NOT NULL,
      properties TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX audit_events_project ON audit_events (project_id)",
    """
    CREATE TABLE balances (
      project_id TEXT NOT NULL,
      user_id TEXT NOT NULL,
      currency_code TEXT NOT NULL,
      balance BIGINT NOT NULL,
      lifetime_earned BIGINT NOT NULL,
      lifetime_spent BIGINT NOT NULL,
      recharged_ms BIGINT NOT NULL,
      transactions INTEGER NOT NULL,
      PRIMARY KEY (project_id, user_id, currency_code),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE collections (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      name TEXT NOT NULL,
      version INTEGER NOT NULL,
      columns TEXT NOT NULL,
      indexes TEXT NOT NULL,
      options TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      migrated_ms BIGINT NOT NULL,
      CONSTRAINT collections_name UNIQUE (project_id, name),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE configs (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      "key" TEXT NOT NULL,
      value TEXT NOT NULL,
      value_type TEXT NOT NULL,
      description TEXT,
      conditions TEXT NOT NULL,
      is_active BOOLEAN NOT NULL,
      version INTEGER NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      CONSTRAINT configs_key UNIQUE (project_id, "key"),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE currencies (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      code TEXT NOT NULL,
      name TEXT NOT NULL,
      description TEXT,
      is_premium BOOLEAN NOT NULL,
      initial_balance BIGINT NOT NULL,
      max_balance BIGINT,
      auto_recharge_amount BIGINT,
      auto_recharge_interval_hours INTEGER,
      recharging_ms BIGINT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      CONSTRAINT currencies_code UNIQUE (project_id, code),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE currency_transactions (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      user_id TEXT NOT NULL,
      currency_code TEXT NOT NULL,
      amount BIGINT NOT NULL,
      balance_after BIGINT NOT NULL,
      type TEXT NOT NULL,
      source TEXT NOT NULL,
      reason TEXT,
      reference_id TEXT,
      created_ms BIGINT NOT NULL,
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX currency_transactions_kept"
    " ON currency_transactions (project_id, user_id, currency_code, seq)",
    "CREATE UNIQUE INDEX currency_transactions_once"
    " ON currency_transactions (project_id, user_id, currency_code, type, reference_id)",
    "CREATE INDEX currency_transactions_user ON currency_transactions (project_id, user_id, seq)",
    """
    CREATE TABLE emails (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      user_id TEXT,
      recipient TEXT NOT NULL,
      template TEXT,
      subject TEXT NOT NULL,
      html TEXT,
      text TEXT,
      data TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      CONSTRAINT emails_id UNIQUE (project_id, id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE events (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      user_id TEXT,
      name TEXT NOT NULL,
      properties TEXT NOT NULL,
      occurred_ms BIGINT NOT NULL,
      received_ms BIGINT NOT NULL,
      event_id TEXT,
      CONSTRAINT events_once UNIQUE (project_id, event_id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX events_time ON events (project_id, occurred_ms, id)",
    "CREATE INDEX events_user ON events (project_id, user_id, occurred_ms)",
    """
    CREATE TABLE media_assets (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      upload_id TEXT NOT NULL,
      user_id TEXT,
      folder_id TEXT,
      bucket TEXT NOT NULL,
      object_key TEXT NOT NULL,
      filename TEXT,
      mime_type TEXT NOT NULL,
      size_bytes BIGINT,
      state TEXT NOT NULL,
      retention_days INTEGER,
      metadata TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      expires_ms BIGINT NOT NULL,
      committed_ms BIGINT,
      purge_ms BIGINT,
      CONSTRAINT media_assets_id UNIQUE (project_id, id),
      CONSTRAINT media_assets_upload UNIQUE (project_id, upload_id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX media_assets_object ON media_assets (project_id, object_key)",
    "CREATE INDEX media_assets_purge ON media_assets (project_id, purge_ms)",
    "CREATE INDEX media_assets_user ON media_assets (project_id, user_id, seq)",
    """
    CREATE TABLE push_tokens (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      user_id TEXT NOT NULL,
      token TEXT NOT NULL,
      platform TEXT NOT NULL,
      provider TEXT NOT NULL,
      bundle_id TEXT,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      CONSTRAINT push_tokens_token UNIQUE (project_id, token),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE refresh_tokens (
      digest BLOB NOT NULL,
      project_id TEXT NOT NULL,
      user_id TEXT NOT NULL,
      family TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      expires_ms BIGINT NOT NULL,
      used_ms BIGINT,
      revoked BOOLEAN NOT NULL,
      PRIMARY KEY (digest),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX refresh_tokens_family ON refresh_tokens (project_id, family)",
    "CREATE INDEX refresh_tokens_user ON refresh_tokens (project_id, user_id)",
    """
    CREATE TABLE segment_members (
      project_id TEXT NOT NULL,
      segment_id TEXT NOT NULL,
      user_id TEXT NOT NULL,
      PRIMARY KEY (project_id, segment_id, user_id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX segment_members_user ON segment_members (project_id, user_id)",
    """
    CREATE TABLE segments (
      seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
      project_id TEXT NOT NULL,
      id TEXT NOT NULL,
      name TEXT NOT NULL,
      description TEXT,
      rules TEXT NOT NULL,
      created_ms BIGINT NOT NULL,
      updated_ms BIGINT NOT NULL,
      evaluated_ms BIGINT,
      CONSTRAINT segments_id UNIQUE (project_id, id),
      FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
    )
    """,
)
