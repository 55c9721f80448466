"""The floor: what a worker is, what may run, and running it."""
