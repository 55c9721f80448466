"""From 3 to 4, too: unique indexes of collections do not count rows that are deleted softly.

What another column refers to keeps one that does, under another name: SQLite needs it so.
"""

from __future__ import annotations

import json
from typing import Any

from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Makes the indexes anew; rows are not touched."""
    run = op.get_bind().exec_driver_sql
    found = run("SELECT seq, project_id, name, columns, indexes FROM collections").all()
    ids = {(row.project_id, row.name): row.seq for row in found}
    for row in found:
        for index in json.loads(row.indexes):
            if index["unique"]:
                name = f'"coll_{row.seq}.index.{index["name"]}"'
                run(f"DROP INDEX IF EXISTS {name}")
                run(
                    f'CREATE UNIQUE INDEX {name} ON "coll_{row.seq}" ({_parts(index)})'
                    " WHERE deleted_at IS NULL"
                )
    for row in found:
        for column in json.loads(row.columns):
            to = column["references"] or {"table": "", "column": "id"}
            target = ids.get((row.project_id, to["table"]))
            if target is not None and to["column"] != "id":
                run(
                    f'CREATE UNIQUE INDEX IF NOT EXISTS "coll_{target}.target.{to["column"]}"'
                    f' ON "coll_{target}" ("{to["column"]}")'
                )


def _parts(index: dict[str, Any]) -> str:
    # names have passed the rule of names: letters, digits and underscores
    return ", ".join(
        f'"{name}" {"DESC" if descending else "ASC"}' for name, descending in index["columns"]
    )
