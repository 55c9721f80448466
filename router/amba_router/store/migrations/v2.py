"""From 1 (STORAGE alone) to 2: the control plane's tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Adds tables; what was there is not touched."""
    op.create_table(
        "projects",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("slug", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("bundle_id", sa.Text),
        sa.Column("developer_id", sa.Text, nullable=False),
        sa.Column("storage", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "credentials",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        _project(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("lookup", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("credentials_project", "credentials", ["project_id"])
    op.create_table(
        "api_keys",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        _project(),
        sa.Column("key_type", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("lookup", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("api_keys_project", "api_keys", ["project_id"])
    op.create_table(
        "pats",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("developer_id", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    _deployments(op)
    op.create_table(
        "secrets",
        _project(primary_key=True),
        sa.Column("function", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("unset_seq", sa.Integer),
    )


def _deployments(op: Operations) -> None:
    op.create_table(
        "deployments",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        _project(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("bundle_sha", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("bytes_gzip", sa.BigInteger, nullable=False),
        sa.Column("map_sha", sa.Text),
        sa.Column("map_bytes", sa.BigInteger),
        sa.Column("handlers", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("rate_limit", sa.Text),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("rolled_back_from", sa.Integer),
        sa.Column("note", sa.Text, nullable=False),
        sa.UniqueConstraint("project_id", "name", "version", name="deployments_version"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "deployments_active",
        "deployments",
        ["project_id", "name"],
        unique=True,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index("deployments_bundle", "deployments", ["bundle_sha"])
    op.create_index("deployments_map", "deployments", ["map_sha"])


def _project(*, primary_key: bool = False) -> sa.Column[Any]:
    owner = sa.ForeignKey("projects.id", ondelete="CASCADE")
    return sa.Column("project_id", sa.Text, owner, nullable=False, primary_key=primary_key)
