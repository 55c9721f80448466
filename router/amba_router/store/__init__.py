"""The only place that knows SQL, and the folder of blobs beside it.

`database` and `objects` import SQLAlchemy (a few hundred milliseconds): services import them
inside `open`, in a thread. `records` and `blobs` are free of it.
"""
