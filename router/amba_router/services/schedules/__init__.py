"""Schedules: when a function's `scheduled` handler is called. Source: contract D.6, H-13."""
