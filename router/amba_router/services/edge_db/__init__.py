"""EDGE_DB_PROXY: the database binding of the 0.1.x functions SDK, over a project's collections.

Contract B.1 and C. `lexer` and `parser` read the SQL, `statements` is what they make of it,
`service` runs it within bounds, `routes` speaks to functions. Nothing of a function's text ever
reaches the database: names become columns that are known, values become bound parameters.
"""
