"""Bindings: what a function finds in `env`, one module per kind."""
