"""Emulated services, each a folder alike: service.py is behaviour, routes.py is the wire."""
