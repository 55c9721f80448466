"""Sources to a bundle, and the report on it."""
