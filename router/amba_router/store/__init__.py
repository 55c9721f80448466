"""The only place that knows SQL, and the folder of blobs beside it.

`state` opens a directory, `control` is what a node asks, `objects` what STORAGE asks.
Those that speak SQL import SQLAlchemy (a few hundred milliseconds), so `state` and `control`
import them late, in a thread or once a state is open. These two, `control_records`, `records`,
`blobs` and `sealing` are cheap to import.
"""
