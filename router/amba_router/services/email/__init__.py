"""Email: an outbox of files one can open. Nothing is ever sent. Source: contract E.11."""
