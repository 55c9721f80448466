"""The command line: one module per command, loaded when it is called."""


def main() -> None:
    """Entry point of `amba-run`."""
