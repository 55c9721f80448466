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
)

VERSION = 1
"""Raised with every change of a table; a database of a higher one is refused."""

metadata = MetaData()

amba_meta = Table(
    "amba_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about the database itself: `schema_version`."""

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
