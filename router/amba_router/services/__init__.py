"""Emulated services, each a folder of the same anatomy: service.py (behaviour), routes.py (wire)."""
