"""`python -m amba_run` is `amba-run`."""

from __future__ import annotations

from amba_run.cli import main

if __name__ == "__main__":
    main()
