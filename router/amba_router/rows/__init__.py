"""What rows of collections are made of: columns, values, filters, queries, statements.

The services about rows and the store share it; it makes no SQL. Source: contract C, E.5.
"""
