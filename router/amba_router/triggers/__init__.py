"""Cron and queue: they make invocations the way the dispatcher does. Their issue fills it."""
