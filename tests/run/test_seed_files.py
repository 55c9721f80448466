"""What a seed folder says: rows of each form, types, order, and every way to be wrong (issue 5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amba_run.seed_files import Seed, SeedError, collections, kind_of
from amba_runtime import limits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "seed"
    (place / "collections").mkdir(parents=True)
    return place


def rows_of(folder: Path, kind: str) -> tuple[dict[str, Any], ...]:
    seed = kind_of(folder, kind)
    assert seed is not None
    return seed.rows


def only(folder: Path) -> Seed:
    """The one collection there is."""
    (seed,) = collections(folder)
    assert isinstance(seed, Seed), seed
    return seed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("users.json", '[{"id": "u", "properties": {"a": 1}}]'),
        ("users.json", '\ufeff[{"id": "u", "properties": {"a": 1}}]'),
        ("users.jsonl", '\n{"id": "u", "properties": {"a": 1}}\r\n\n'),
        ("users.csv", 'id,properties,email\r\nu,"{""a"": 1}",\r\n\r\n'),
    ],
)
def test_the_same_row_in_each_form(folder: Path, name: str, text: str) -> None:
    """A list, a line each, or a table; an empty field is no value."""
    (folder / name).write_bytes(text.encode())
    seed = kind_of(folder, "users")
    assert seed == Seed("users", f"seed/{name}", ({"id": "u", "properties": {"a": 1}},))


def test_what_is_not_there(folder: Path) -> None:
    """No file, no seed; an empty table has no rows."""
    assert kind_of(folder, "users") is None
    (folder / "users.csv").write_text("")
    assert rows_of(folder, "users") == ()


def test_fields_of_a_table_have_types(folder: Path) -> None:
    """By the kind's own members, and of config by `value_type`; what does not fit stays text."""
    (folder / "currencies.csv").write_text(
        "code,is_premium,initial_balance,max_balance,name\n1,TRUE,7,7.5,5\n2,maybe,many,-1,true\n"
    )
    assert rows_of(folder, "currencies") == (
        {"code": "1", "is_premium": True, "initial_balance": 7, "max_balance": 7.5, "name": "5"},
        {
            "code": "2",
            "is_premium": "maybe",
            "initial_balance": "many",
            "max_balance": -1,
            "name": "true",
        },
    )
    (folder / "config.csv").write_text(
        'key,value,value_type,conditions\na,1,number,"[]"\nb,1,string,\nc,false,boolean,x\n'
        'd,"{""x"":1}",json,\ne,7,,\n'
    )
    values = [
        (row["key"], row["value"], row.get("conditions")) for row in rows_of(folder, "config")
    ]
    assert values == [
        ("a", 1, []),
        ("b", "1", None),
        ("c", False, "x"),
        ("d", {"x": 1}, None),
        ("e", "7", None),
    ]


def test_config_may_be_an_object(folder: Path) -> None:
    """Keys and values, each of its own type."""
    said = {"a": "x", "b": 1, "c": 2.5, "d": True, "e": [1], "f": None, "g": 2**40}
    (folder / "config.json").write_text(json.dumps(said))
    rows = rows_of(folder, "config")
    assert {row["key"]: row["value"] for row in rows} == said
    types = [row["value_type"] for row in rows]
    assert types == ["string", "number", "number", "boolean", "json", "json", "number"]


def test_columns_are_guessed(folder: Path) -> None:
    """From all values of a column, each nullable; what the server manages is left out."""
    rows: list[dict[str, Any]] = [
        {"id": "x", "user_id": "u", "t": "a", "i": 1, "w": 1, "f": 1, "b": True, "m": 1, "j": {}},
        {"created_at": "y", "t": None, "i": 2, "w": 2**31, "f": 0.5, "m": "x", "j": [], "n": None},
        {"w": 1.5, "v": 2**31, "u": -(2**31)},
        {"v": 1},
    ]
    (folder / "collections" / "things.json").write_text(json.dumps(rows))
    seed = only(folder)
    assert seed.rows == tuple(rows)
    assert seed.schema is not None
    columns = seed.schema["columns"]
    assert all(column["nullable"] for column in columns)
    assert {column["name"]: column["type"] for column in columns} == {
        "t": "text", "i": "integer", "w": "numeric", "f": "numeric", "b": "boolean",
        "m": "jsonb", "j": "jsonb", "n": "text", "v": "bigint", "u": "integer",
    }  # fmt: skip


def test_columns_of_a_table_are_guessed(folder: Path) -> None:
    """From all fields of a column; what would not come back as it was written stays text."""
    (folder / "collections" / "things.csv").write_text(
        "i,big,n,b,zip,mixed,huge,name,date,none,e\n"
        "1,2147483648,1,true,01234,1,9223372036854775808,Ann,2026-01-01,,1e5\n"
        "-2,0,2.50,FALSE,99999,x,1,Bob,2026-01-02,,2\n"
    )
    seed = only(folder)
    assert seed.schema is not None
    columns = seed.schema["columns"]
    assert all(column["nullable"] for column in columns)
    assert {column["name"]: column["type"] for column in columns} == {
        "i": "integer", "big": "bigint", "n": "numeric", "b": "boolean", "zip": "text",
        "mixed": "text", "huge": "text", "name": "text", "date": "text", "e": "text",
    }  # fmt: skip
    assert seed.rows[0] == {
        "i": 1, "big": 2**31, "n": 1, "b": True, "zip": "01234", "mixed": "1",
        "huge": "9223372036854775808", "name": "Ann", "date": "2026-01-01", "e": "1e5",
    }  # fmt: skip
    assert (seed.rows[1]["n"], seed.rows[1]["b"], seed.rows[1]["zip"]) == (2.5, False, "99999")


def test_columns_are_declared(folder: Path) -> None:
    """Beside the rows, or in a file of their own, which wins; they type a table's fields."""
    place = folder / "collections"
    columns = [
        {"name": "n", "type": "bigint"},
        {"name": "v", "type": "vector", "dimension": 2},
        {"name": "tags", "type": "text[]"},
        {"name": "on", "type": "bool"},
    ]
    whole = {"name": "other", "columns": columns, "indexes": [], "rows": [{"n": 1}]}
    (place / "things.json").write_text(json.dumps(whole))
    seed = only(folder)
    assert (seed.name, seed.schema) == ("things", {"columns": columns, "indexes": []})
    assert seed.rows == ({"n": 1},)
    (place / "things.json").unlink()
    (place / "things.schema.json").write_text(json.dumps({"columns": columns}))
    assert only(folder) == Seed(
        "things", "seed/collections/things.schema.json", (), {"columns": columns}
    )
    (place / "things.csv").write_text('n,v,tags,on\n9,"[1, 0]","[""a""]",false\nx,"[NaN]",y,z\n')
    assert only(folder).rows == (
        {"n": 9, "v": [1, 0], "tags": ["a"], "on": False},
        {"n": "x", "v": "[NaN]", "tags": "y", "on": "z"},
    )


def test_what_is_referred_to_comes_first(folder: Path) -> None:
    """Also over several steps; a circle ends."""
    for name, to in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "app_users"), ("e", "e")):
        column = {"name": "x", "type": "uuid", "references": {"table": to}}
        text = json.dumps({"columns": [column, "odd"], "rows": []})
        (folder / "collections" / f"{name}.json").write_text(text)
    order = [seed.name for seed in collections(folder) if isinstance(seed, Seed)]
    assert order == ["c", "b", "a", "d", "e"]
    (folder / "collections" / "_x.json").write_text("[]")
    (folder / "collections" / ".x.json").write_text("[]")
    (folder / "collections" / "notes.txt").write_text("")
    assert len(list(collections(folder))) == 5


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("users.json", b"{", "seed/users.json is not JSON"),
        ("users.json", b"[NaN]", "NaN is no JSON"),
        ("users.json", b"[" * 200_000, "seed/users.json is not JSON"),
        ("users.json", b"\xff", "is not UTF-8"),
        ("users.json", b"{}", "seed/users.json is no list of rows"),
        ("users.json", b"7", "is no list of rows"),
        ("users.json", b"[{}, 7]", "row 2 is no object"),
        ("users.jsonl", b"{}\nx\n", "seed/users.jsonl:2 is not JSON"),
        ("users.jsonl", b"7\n", "row 1 is no object"),
        ("users.csv", b"a,b\n1,2\n1\n", "seed/users.csv:3 has 1 fields, the first line 2"),
        ("users.csv", b"a,b,a\n1,2,3\n", "seed/users.csv:1 names the column 'a' twice"),
        ("users.csv", b'a\n"x"y\n', "seed/users.csv:2 is not CSV"),
    ],
)
def test_what_cannot_be_read(folder: Path, name: str, raw: bytes, why: str) -> None:
    """Is told with its file, and the line or row where there is one."""
    (folder / name).write_bytes(raw)
    with pytest.raises(SeedError, match=why):
        kind_of(folder, "users")


def test_two_files_of_one_name(folder: Path) -> None:
    """Are an error: which one counts?"""
    for suffix in ("csv", "json"):
        (folder / f"users.{suffix}").write_text("[]")
    with pytest.raises(SeedError, match=r"users.json and users.csv say the same twice"):
        kind_of(folder, "users")


def test_a_bad_collection_leaves_the_others(folder: Path) -> None:
    """Each is told by itself."""
    place = folder / "collections"
    (place / "a.json").write_text("{")
    (place / "b.schema.json").write_text("[]")
    (place / "c.json").write_text("[]")
    first, second, third = collections(folder)
    assert str(first).startswith("seed/collections/a.json is not JSON")
    assert str(second) == "seed/collections/b.schema.json is no object"
    assert isinstance(third, Seed)
    assert third.schema == {"columns": []}


def test_seeds_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and rows of a file, collections of a folder (house rule: a limit is reached)."""
    (folder / "users.json").write_text("[{},{}]")
    for name, most, wrong in (
        ("SEED_FILE_BYTES", 7, "is larger than 6 bytes"),
        ("SEED_ROWS", 2, "has 2 rows; 1 are loaded at most"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, limits.Limit(most, "", "", ""))
            assert len(rows_of(folder, "users")) == 2
            patch.setattr(limits, name, limits.Limit(most - 1, "", "", ""))
            with pytest.raises(SeedError, match=wrong):
                kind_of(folder, "users")
    for name in "ab":
        (folder / "collections" / f"{name}.json").write_text("[]")
    monkeypatch.setattr(limits, "SEED_COLLECTIONS", limits.Limit(2, "", "", ""))
    assert len(list(collections(folder))) == 2
    monkeypatch.setattr(limits, "SEED_COLLECTIONS", limits.Limit(1, "", "", ""))
    (error,) = collections(folder)
    assert "2 collections; 1 are loaded at most" in str(error)


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told as such."""
    (folder / "users.json").write_text("[]")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(SeedError, match=r"users.json cannot be read: Permission denied"):
        kind_of(folder, "users")
