"""Writes the tables in the READMEs that come from code; `tests/test_house.py` compares them.

Usage: python .ci/docs_tables.py
"""

from __future__ import annotations

from pathlib import Path

from amba_runtime import limits

ROOT = Path(__file__).parent.parent


def settings_table() -> str:
    """The limits a user can set, from `limits.SETTINGS`."""
    rows = [
        "| Setting | Unit | Dev | Hosted | Least | Most | Bounds | Source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in limits.SETTINGS:
        default = "off" if s.off and s.dev == 0 else s.dev
        rows.append(
            f"| `{s.name}` | {s.unit or 'count'} | {default} | {s.hosted} "
            f"| {s.minimum} | {s.maximum} | {s.bounds} | {s.source} |"
        )
    return "\n".join(rows)


def constants_table() -> str:
    """Every other number of the platform, from `limits`."""
    rows = ["| Name | Value | Bounds | Source |", "|---|---|---|---|"]
    for name, value in sorted(vars(limits).items()):
        if isinstance(value, limits.Limit):
            rows.append(
                f"| `{name}` | {value.value:,} {value.unit} | {value.bounds} | {value.source} |"
            )
        elif isinstance(value, limits.Deadline):
            rows.append(f"| `{name}` | {value.value:g} s | {value.bounds} | {value.source} |")
    return "\n".join(rows)


TABLES = {
    ("runtime/README.md", "settings"): settings_table,
    ("runtime/README.md", "constants"): constants_table,
}


def with_tables(text: str, file: str) -> str:
    """`text` of `file` with its generated tables as the code has them now."""
    for (name, label), table in TABLES.items():
        if name == file:
            start, end = f"<!-- table: {label} -->\n", f"<!-- end: {label} -->"
            before, _, rest = text.partition(start)
            _, _, after = rest.partition(end)
            text = f"{before}{start}{table()}\n{end}{after}"
    return text


def main() -> None:
    """Rewrite the files in place."""
    for file in sorted({name for name, _ in TABLES}):
        path = ROOT / file
        path.write_text(with_tables(path.read_text(), file))


if __name__ == "__main__":
    main()
