"""The database of a 0.1.x bundle: a Fetcher that takes SQL. Source: contract B.1, C.

A function gets it whatever it is: nothing tells beforehand which bundles were built with the
0.1.x SDK. Its calls come to `Surroundings.database` as `POST /query` with `{sql, params}`; what
SQL is, nobody in this package knows.
"""

from __future__ import annotations

DATABASE_NAME = "EDGE_DB_PROXY"
"""`HYPERDRIVE`, which the SDK would prefer, is left out: it speaks the wire of Postgres."""
