"""Everything that faces people: the command line, the dev loop, and the wiring."""

__version__ = "0.1.0"
