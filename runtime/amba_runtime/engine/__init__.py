"""Engines: programs that run bundles, each behind the seam of `base`."""
