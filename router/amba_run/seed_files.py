"""What a seed folder says: which files count, and their rows. No server is asked here.

    collections/NAME.json|jsonl|csv     rows; NAME.schema.json has its columns, or they are guessed
    config, currencies, users, balances .json|jsonl|csv

A .json file is a list of rows; a collection's may be an object with `columns` and `rows`, and
`config.json` one of keys and values. A .csv file has names in its first line; an empty field is
no value. The form is ours. Source: issue 5 item 8.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from amba_runtime import limits

Row = dict[str, Any]

KINDS = ("currencies", "users", "balances", "config")
"""Files beside `collections/`, in the order in which they are loaded."""

_SUFFIXES = (".json", ".jsonl", ".csv")
_SCHEMA = ".schema.json"
_MANAGED = frozenset({"id", "user_id", "created_at", "updated_at", "deleted_at"})
_AMOUNTS = ("amount", "initial_balance", "max_balance", "auto_recharge_amount")
_WHOLE: Mapping[str, str] = MappingProxyType(dict.fromkeys(_AMOUNTS, "integer"))
_TYPES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "currencies": {
            **_WHOLE,
            "auto_recharge_interval_hours": "integer",
            "is_premium": "boolean",
        },
        "balances": _WHOLE,
        "users": {"properties": "jsonb"},
        "config": {"conditions": "jsonb"},
    }
)
"""Of fields in a .csv file that are no text."""


class SeedError(Exception):
    """A file cannot be read as seeds: the message names it, and the line where there is one."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One file's rows. Attributes: schema: of a collection, what creates it besides its name."""

    name: str
    file: str
    rows: tuple[Row, ...]
    schema: Row | None = None


def kind_of(folder: Path, kind: str) -> Seed | None:
    """`config.json` and the like; None where there is none. Raises SeedError."""
    file = _one(folder, kind)
    if file is None:
        return None
    value = _read(file, folder)
    if kind == "config" and isinstance(value, dict):
        value = [_config(key, entry) for key, entry in cast(Row, value).items()]
    rows = _rows(value, file, folder)
    if file.suffix == ".csv":
        rows = [_typed(row, _types(kind, row)) for row in rows]
    return Seed(kind, _shown(file, folder), tuple(rows))


def collections(folder: Path) -> Iterator[Seed | SeedError]:
    """Those of `collections/`, what they refer to before them."""
    found: dict[str, Seed | SeedError] = {}
    try:
        for name in _names(folder / "collections"):
            try:
                found[name] = _collection(folder, name)
            except SeedError as error:
                found[name] = error
    except SeedError as error:
        yield error
    told: set[str] = set()

    def visit(name: str) -> Iterator[Seed | SeedError]:
        if name in told or name not in found:
            return
        told.add(name)
        seed = found[name]
        if isinstance(seed, Seed):
            for other in _referred(seed):
                yield from visit(other)
        yield seed

    for name in found:
        yield from visit(name)


def _collection(folder: Path, name: str) -> Seed:
    file = _one(folder / "collections", name)
    declared = folder / "collections" / f"{name}{_SCHEMA}"
    schema = _object(_read(declared, folder), declared, folder) if declared.is_file() else None
    value: Any = [] if file is None else _read(file, folder)
    if file is not None and isinstance(value, dict):
        whole = cast(Row, value)
        value = whole.pop("rows", [])
        schema = whole if schema is None else schema
    shown = _shown(file or declared, folder)
    rows = _rows(value, file or declared, folder)
    is_csv = file is not None and file.suffix == ".csv"
    if schema is None:
        guessed = _guessed(rows, _type_of_text, "text") if is_csv else _guessed(rows)
        schema = {"columns": guessed}
    if is_csv:
        types = {str(c.get("name")): str(c.get("type")) for c in _columns(schema)}
        rows = [_typed(row, types) for row in rows]
    schema.pop("name", None)
    return Seed(name, shown, tuple(rows), schema)


def _columns(schema: Row) -> list[Row]:
    columns: Any = schema.get("columns")
    if not isinstance(columns, list):
        return []
    listed: list[Any] = columns  # pyright: ignore[reportUnknownVariableType]  # JSON
    return [column for column in listed if isinstance(column, dict)]


def _referred(seed: Seed) -> Iterator[str]:
    for column in _columns(seed.schema or {}):
        to: Any = column.get("references")
        if isinstance(to, dict):
            yield str(cast(Row, to).get("table"))


def _guessed(
    rows: Iterable[Row], type_of: Callable[[Any], str] | None = None, mixed: str = "jsonb"
) -> list[Row]:
    """Columns that hold these rows, each nullable, in order of their first value.

    Args:
        type_of: of one value; None is of JSON.
        mixed: the type that holds values of several.
    """
    type_of = type_of or _type_of
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in _MANAGED:
                seen.setdefault(name, set()).update(() if value is None else (type_of(value),))
    return [
        {"name": name, "type": _common(types, mixed), "nullable": True}
        for name, types in seen.items()
    ]


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**31) <= value < 2**31 else "bigint"
    if isinstance(value, float):
        return "numeric"
    return "text" if isinstance(value, str) else "jsonb"


def _type_of_text(text: str) -> str:
    """Of a field of a .csv file; what would not come back as it stands there is text: `007`."""
    if text.strip().lower() in ("true", "false"):
        return "boolean"
    if _WHOLE_NUMBER.match(text):
        whole = int(text)
        return _type_of(whole) if -(2**63) <= whole < 2**63 else "text"
    return "numeric" if _NUMBER.match(text) else "text"


_WHOLE_NUMBER = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})\.[0-9]{1,18}\Z")


def _common(types: set[str], mixed: str) -> str:
    if len(types) <= 1:
        return next(iter(types), "text")
    if types <= {"integer", "bigint"}:
        return "bigint"
    return "numeric" if types <= {"integer", "bigint", "numeric"} else mixed


# --- files ---


def _names(folder: Path) -> list[str]:
    names: set[str] = set()
    if folder.is_dir():
        for entry in itertools.islice(folder.iterdir(), limits.FOLDER_ENTRIES.value):
            if entry.name.endswith(_SCHEMA):
                names.add(entry.name.removesuffix(_SCHEMA))
            elif entry.suffix in _SUFFIXES and entry.name[0] not in "._":
                names.add(entry.stem)
    if len(names) > limits.SEED_COLLECTIONS.value:
        raise SeedError(
            f"{folder.name}: {len(names)} collections; {limits.SEED_COLLECTIONS.value} are loaded "
            "at most"
        )
    return sorted(names)


def _one(folder: Path, stem: str) -> Path | None:
    found = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES]
    found = [file for file in found if file.is_file()]
    if len(found) > 1:
        raise SeedError(f"{found[0].name} and {found[1].name} say the same twice: keep one")
    return found[0] if found else None


def _read(file: Path, folder: Path) -> Any:
    """JSON as it is; the rows of the other two."""
    shown = _shown(file, folder)
    try:
        with open(file, "rb") as opened:
            raw = opened.read(limits.SEED_FILE_BYTES.value + 1)
    except OSError as error:
        raise SeedError(f"{shown} cannot be read: {error.strerror}") from None
    if len(raw) > limits.SEED_FILE_BYTES.value:
        raise SeedError(f"{shown} is larger than {limits.SEED_FILE_BYTES.value} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SeedError(f"{shown} is not UTF-8: {error.reason} at byte {error.start}") from None
    if file.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        return [_json(line, f"{shown}:{number}") for number, line in lines if line.strip()]
    if file.suffix == ".csv":
        return list(_csv(text, shown))
    return _json(text, shown)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SeedError(f"{where} is not JSON: {error}"[:300]) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _csv(text: str, shown: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(reader, list[str]())
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise SeedError(f"{shown}:1 names the column {name[:64]!r} twice")
            seen.add(name)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                raise SeedError(
                    f"{shown}:{reader.line_num} has {len(fields)} fields, "
                    f"the first line {len(names)}"
                )
            yield {name: value for name, value in zip(names, fields, strict=True) if value}
    except csv.Error as error:
        raise SeedError(f"{shown}:{reader.line_num} is not CSV: {error}") from None


def _rows(value: Any, file: Path, folder: Path) -> list[Row]:
    shown = _shown(file, folder)
    if not isinstance(value, list):
        raise SeedError(f"{shown} is no list of rows")
    rows: list[Any] = value  # pyright: ignore[reportUnknownVariableType]  # JSON
    if len(rows) > limits.SEED_ROWS.value:
        raise SeedError(
            f"{shown} has {len(rows)} rows; {limits.SEED_ROWS.value} are loaded at most"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise SeedError(f"{shown}: row {number} is no object")
    return rows


def _object(value: Any, file: Path, folder: Path) -> Row:
    if not isinstance(value, dict):
        raise SeedError(f"{_shown(file, folder)} is no object")
    return cast(Row, value)


def _typed(row: Row, types: Mapping[str, str]) -> Row:
    return {name: _value(text, types.get(name, "text")) for name, text in row.items()}


def _value(text: str, type_: str) -> Any:
    """A field of a .csv file; what does not fit stays text, and whoever takes it says so."""
    low = text.strip().lower()
    if type_ in ("boolean", "bool") and low in ("true", "false"):
        return low == "true"
    if type_ in ("integer", "int", "int4", "bigint", "int8", "numeric", "number"):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    if type_ in ("jsonb", "json", "vector") or type_.endswith("[]"):
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return text
    return text


def _config(key: str, value: Any) -> Row:
    """An entry of `config.json`: a value, whose type is its own."""
    types = {"boolean": "boolean", "integer": "number", "bigint": "number", "numeric": "number"}
    if isinstance(value, str):
        return {"key": key, "value": value, "value_type": "string"}
    return {"key": key, "value": value, "value_type": types.get(_type_of(value), "json")}


def _types(kind: str, row: Row) -> Mapping[str, str]:
    if kind == "config":
        return {**_TYPES[kind], "value": str(row.get("value_type", "text"))}
    return _TYPES[kind]


def _shown(file: Path, folder: Path) -> str:
    return file.relative_to(folder.parent).as_posix()
