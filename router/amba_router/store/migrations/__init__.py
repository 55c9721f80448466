"""The steps from each schema version to the next, for databases of older programs.

A step says its tables in words of its own: `schema` goes on changing, a step never does.
alembic is imported here and nowhere else, so only an upgrade pays for it.
"""

from __future__ import annotations

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

from amba_router.store.migrations import v2, v3, v4, v4_indexes

STEPS = {2: (v2.upgrade,), 3: (v3.upgrade,), 4: (v4.upgrade, v4_indexes.upgrade)}
"""Version to the steps that lead to it from the one before."""


def upgrade(connection: Connection, *, found: int, wanted: int) -> None:
    """Run the steps from `found` to `wanted`, in the transaction of `connection`."""
    operations = Operations(MigrationContext.configure(connection))
    for version in range(found + 1, wanted + 1):
        for step in STEPS[version]:
            step(operations)
