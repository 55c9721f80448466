"""The tables. One schema for SQLite now and Postgres later; SQLAlchemy Core, no ORM."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION = 4
"""Raised with every change of a table, with a step in `migrations`; a higher one is refused."""

metadata = MetaData()

amba_meta = Table(
    "amba_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about the database itself: `schema_version`; `key_check`, by which its key is known."""

storage_objects = Table(
    "storage_objects",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    Column("version", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("uploaded_ms", BigInteger, nullable=False),
    Column("checksums", Text, nullable=False),
    Column("http_metadata", Text, nullable=False),
    Column("custom_metadata", Text, nullable=False),
    Column("storage_class", Text, nullable=False),
)
"""One row per object. Keys are bytes, so that they sort as R2 sorts them (UTF-8 order)."""

storage_segments = Table(
    "storage_segments",
    metadata,
    Column(
        "version",
        Text,
        ForeignKey("storage_objects.version", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("position", Integer, primary_key=True),
    Column("blob", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("storage_segments_blob", "blob"),
)
"""The blobs of an object in order; an empty object has none, a multipart one has many."""

storage_uploads = Table(
    "storage_uploads",
    metadata,
    Column("upload_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("http_metadata", Text, nullable=False),
    Column("custom_metadata", Text, nullable=False),
    Column("storage_class", Text, nullable=False),
)
"""Multipart uploads; finished ones stay for a while, so that a second end is told apart."""

storage_parts = Table(
    "storage_parts",
    metadata,
    Column(
        "upload_id",
        Text,
        ForeignKey("storage_uploads.upload_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("blob", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index("storage_parts_blob", "blob"),
)
"""Parts of uploads that are still open."""

# --- the control plane. `seq` is the order of writing: clocks jump, it does not, and a number
# --- that was given is never given again (AUTOINCREMENT).

projects = Table(
    "projects",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("bundle_id", Text),
    Column("developer_id", Text, nullable=False),
    Column("storage", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

credentials = Table(
    "credentials",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("lookup", LargeBinary, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Index("credentials_project", "project_id"),
    sqlite_autoincrement=True,
)
"""Internal tokens, signing secrets, session keys; a revoked one is deleted. `lookup` is an HMAC."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("key_type", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("lookup", LargeBinary, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Index("api_keys_project", "project_id"),
    sqlite_autoincrement=True,
)
"""Client and server keys; a revoked one is deleted."""

pats = Table(
    "pats",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("developer_id", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Developers' tokens by their SHA-256: they are never handed out again."""

deployments = Table(
    "deployments",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("bundle_sha", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("bytes_gzip", BigInteger, nullable=False),
    Column("map_sha", Text),
    Column("map_bytes", BigInteger),
    Column("handlers", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("rate_limit", Text),
    Column("limits", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("rolled_back_from", Integer),
    Column("note", Text, nullable=False),
    UniqueConstraint("project_id", "name", "version", name="deployments_version"),
    Index(
        "deployments_active",
        "project_id",
        "name",
        unique=True,
        sqlite_where=text("status = 'active'"),
        postgresql_where=text("status = 'active'"),
    ),
    Index("deployments_bundle", "bundle_sha"),
    Index("deployments_map", "map_sha"),
    sqlite_autoincrement=True,
)
"""History is kept: a row goes with its project only, and so do the blobs that rows name."""

secrets = Table(
    "secrets",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("function", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("unset_seq", Integer),
)
"""`function` is "" for the whole project.

`unset_seq` is NULL while the secret is set; then the highest `deployments.seq` of that moment:
deployments up to it keep the value.
"""

CONTROL = ("projects", "credentials", "api_keys", "pats", "deployments", "secrets")
"""The tables of the control plane, which are never large."""
