"""Queues: who consumes them, sending, and what lies in them. Source: contract D.7, H-14."""
