"""Every statement that the 0.1.x functions SDK makes (contract B.1), against real collections."""

# ruff: noqa: S608  # statements made of pieces are what is tested here

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.router.services.collections.desk import column
from tests.router.services.edge_db.proxy import Proxy, at_proxy

LETTERS = (
    column("title"),
    column("score", "integer"),
    column("done", "boolean"),
    column("sent_at", "timestamptz"),
    column("tags", "text[]"),
    column("meta", "jsonb"),
)
INSERT = 'INSERT INTO "coll_letters" ("title", "score") VALUES ($1, $2) RETURNING *'


async def filled(proxy: Proxy, *titles: str | None) -> None:
    """One row each, with scores 1, 2, 3."""
    for score, title in enumerate(titles, 1):
        assert await proxy.rows(INSERT, title, score)


def test_a_row_is_inserted_and_is_there_for_the_api(tmp_path: Path) -> None:
    """`create`: the row with its managed columns, which the API then has (B.1, E.5)."""

    async def work(proxy: Proxy) -> None:
        sql = (
            'INSERT INTO "coll_letters" ("title", "score", "done", "tags", "meta", "user_id", '
            '"sent_at") VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *'
        )
        sent = "2026-01-02T03:04:05.678Z"
        given = ["Hello", 3, True, ["a", "b"], {"n": [1, None]}, "u1", sent]
        [row] = await proxy.rows(sql, *given)
        assert [row[name] for name in ("title", "score", "done", "tags", "meta", "user_id")] == (
            given[:6]
        )
        assert row["sent_at"] == sent
        assert row["deleted_at"] is None
        assert row["created_at"] == row["updated_at"]
        assert await proxy.desk.all("letters") == [row]

    at_proxy(tmp_path, work, letters=LETTERS)


def test_rows_of_the_api_are_found(tmp_path: Path) -> None:
    """`find`: select, order, limit and offset as parameters (B.1)."""

    async def work(proxy: Proxy) -> None:
        for title, score in (("a", 2), ("b", None), ("c", 1)):
            await proxy.desk.insert("letters", title=title, score=score)
        whole = 'SELECT * FROM "coll_letters" WHERE deleted_at IS NULL  LIMIT $1'
        assert [row["title"] for row in await proxy.rows(whole, 50)] == ["a", "b", "c"]
        assert await proxy.rows(whole, 50) == await proxy.desk.all("letters", order="created_at")
        by = 'SELECT "title" FROM "coll_letters" WHERE deleted_at IS NULL ORDER BY'
        assert await proxy.values(f'{by} "score" ASC LIMIT $1', 50) == ["c", "a", "b"]
        assert await proxy.values(f'{by} "score" DESC LIMIT $1', 50) == ["b", "a", "c"]
        assert await proxy.values(f'{by} "score" DESC NULLS LAST LIMIT $1', 1) == ["a"]
        assert await proxy.values(f'{by} "title" LIMIT $1 OFFSET $2', 1, 1) == ["b"]
        assert await proxy.values(f"{by} title LIMIT ALL OFFSET 2 ROWS") == ["c"]
        # how node's driver may send a number
        assert await proxy.values(f"{by} title LIMIT $1", "2") == ["a", "b"]
        assert await proxy.rows('SELECT l.title AS t, "score" "n" FROM coll_letters l LIMIT 1') == [
            {"t": "a", "n": 2}
        ]

    at_proxy(tmp_path, work, letters=LETTERS)


def test_rows_are_counted(tmp_path: Path) -> None:
    """`count`: one row with a number (B.1)."""

    async def work(proxy: Proxy) -> None:
        await filled(proxy, "a", "b")
        sql = 'SELECT COUNT(*)::int AS count FROM "coll_letters" WHERE deleted_at IS NULL'
        assert await proxy.rows(sql) == [{"count": 2}]
        assert await proxy.rows(f'{sql} AND "title" = $1', "a") == [{"count": 1}]
        assert await proxy.rows("SELECT count(*) FROM coll_letters") == [{"count": 2}]
        refused = await proxy.query("SELECT count(*) FROM coll_letters LIMIT 1")
        assert refused.code == (400, "UNSUPPORTED_SQL")

    at_proxy(tmp_path, work, letters=LETTERS)


def test_rows_are_updated_and_marked_as_deleted(tmp_path: Path) -> None:
    """`update` and `delete`, which marks: the time is the clock's (B.1)."""

    async def work(proxy: Proxy) -> None:
        await filled(proxy, "a", "b", "c")
        await proxy.desk.world.clock.advance(60)
        set_ = 'UPDATE "coll_letters" SET "title" = $1, updated_at = NOW()'
        where = 'WHERE deleted_at IS NULL AND "score" >= $2'
        rows = await proxy.rows(f"{set_} {where}  RETURNING *", "z", 2)
        assert [row["title"] for row in rows] == ["z", "z"]
        assert all(row["updated_at"] > row["created_at"] for row in rows)
        marked = (
            'UPDATE "coll_letters" SET deleted_at = NOW(), updated_at = NOW() '
            'WHERE deleted_at IS NULL AND "title" = $1  RETURNING "id"'
        )
        gone = await proxy.rows(marked, "z")
        assert gone == [{"id": row["id"]} for row in rows]
        assert [row["title"] for row in await proxy.desk.all("letters")] == ["a"]
        assert await proxy.rows(marked, "z") == []
        said = await proxy.query("UPDATE coll_letters SET score = NULL WHERE title = 'z'")
        assert (said.rows, said.body["rowCount"]) == ([], 2)

    at_proxy(tmp_path, work, letters=LETTERS)


def test_an_update_with_a_limit_reaches_so_many(tmp_path: Path) -> None:
    """Its ids come of an inner SELECT of the same table (B.1); so does the SDK's known mistake."""

    async def work(proxy: Proxy) -> None:
        await filled(proxy, "a", "b", "c")
        some = 'AND "id" IN (SELECT "id" FROM "coll_letters"  LIMIT $2) RETURNING *'
        where = "WHERE deleted_at IS NULL"
        set_ = 'UPDATE "coll_letters" SET "title" = $1, updated_at = NOW()'
        rows = await proxy.rows(f"{set_} {where} {some}", "first", 2)
        assert [row["title"] for row in rows] == ["first", "first"]
        # asUser: `$1` is the title, and no user has that name (E.5)
        inner = 'SELECT "id" FROM "coll_letters" WHERE "user_id" = $1 LIMIT $3'
        wrong = f'{set_} {where} AND "user_id" = $2 AND "id" IN ({inner}) RETURNING *'
        assert await proxy.rows(wrong, "t", "u1", 5) == []
        newest = "SELECT id FROM coll_letters ORDER BY score DESC LIMIT 1"
        sql = f"DELETE FROM coll_letters WHERE id = ANY(({newest})) RETURNING score"
        assert (await proxy.query(sql)).code == (400, "UNSUPPORTED_SQL")
        sql = f"DELETE FROM coll_letters WHERE id = ANY({newest}) RETURNING score"
        assert await proxy.values(sql) == [3]
        assert len(await proxy.desk.all("letters", include_deleted=True)) == 2

    at_proxy(tmp_path, work, letters=LETTERS)


CONDITIONS: list[tuple[str, list[Any], str | None]] = [
    ('"title" = $1', ["Ab"], "1"),
    ('"title" <> $1', ["Ab"], "2 3"),
    ("title != 'Ab'", [], "2 3"),
    ('"score" > $1', [1], "2 3 4"),
    ('"score" >= $1', ["3"], "3 4"),
    ("3 > score", [], "1 2"),
    ("$1 <= score", [3], "3 4"),
    ('"score" <= -$1', [1], None),
    ('"score" > -1', [], "1 2 3 4"),
    ('"title" = ANY($1)', [["Ab", "50%"]], "1 3"),
    ('NOT ("title" = ANY($1))', [["Ab"]], "2 3"),
    ('"title" = ANY($1)', [[]], ""),
    ('NOT ("title" = ANY($1))', [[]], "1 2 3 4"),
    ('NOT ("title" = ANY($1))', [["Ab", None]], ""),
    ('"title" = ANY($1)', [None], ""),
    ("score = ANY($1::int[])", [["1", 4]], "1 4"),
    ("score IN ($1, 2, 4)", [1], "1 2 4"),
    ("score NOT IN (1, 2)", [], "3 4"),
    ('"title" LIKE $1', ["A%"], "1"),
    ('"title" LIKE $1', ["a_"], "2"),
    ('"title" NOT LIKE $1', ["%b"], "3"),
    ('"title" ILIKE $1', ["aB"], "1 2"),
    ('"title" LIKE $1', ["50\\%"], "3"),
    ('"title" LIKE $1', [None], ""),
    ('"title" IS NULL', [], "4"),
    ('"title" IS NOT NULL', [], "1 2 3"),
    ('"title" = $1', [None], ""),
    ('NOT ("title" = $1)', [None], ""),
    ("score BETWEEN $1 AND 3", [2], "2 3"),
    ("NOT score BETWEEN 2 AND 3", [], "1 4"),
    ("done", [], "1"),
    ("NOT done", [], "2"),
    ("done = 'yes' OR done = $1", ["off"], "1 2"),
    ("TRUE AND NOT FALSE", [], "1 2 3 4"),
    ('("title" = $1 OR ("score" > $2 AND NOT ("title" = $1)))', ["Ab", 2], "1 3"),
    ("score = 1 OR score = 2 AND title = 'x'", [], "1"),
    ("created_at <= now() AND created_at <= CURRENT_TIMESTAMP", [], "1 2 3 4"),
    ("coll_letters.score = 1", [], "1"),
    ('"coll_letters"."score" = 1 /* of /* all */ them */ -- and no more', [], "1"),
    ("SCORE = 1 AnD Title LiKe 'A%'", [], "1"),
    ("tags = $1::text[]", [["x"]], "1"),
    ("meta = $1::jsonb", [{"b": 1, "a": 2}], "1"),
    ("meta = ANY($1)", [[{"a": 2, "b": 1}]], "1"),
    ("title = $1::varchar", [50], ""),
    ("title = CAST($1 AS character varying)", ["Ab"], "1"),
    ("created_at < $1::timestamp with time zone", ["2000-01-01T00:00:00Z"], ""),
]
"""A WHERE, its parameters, and the scores it finds; None is refused."""


@pytest.mark.parametrize(("where", "params", "found"), CONDITIONS)
def test_conditions_mean_what_they_mean_to_postgres(
    tmp_path: Path, where: str, params: list[Any], found: str | None
) -> None:
    """Each operator of the SDK, and what a function may write itself (B.1, E.5: SQL meaning)."""

    async def work(proxy: Proxy) -> None:
        await filled(proxy, "Ab", "ab", "50%", None)
        first = "UPDATE coll_letters SET done = true, tags = $1, meta = $2 WHERE score = 1"
        await proxy.rows(first, ["x"], {"a": 2, "b": 1})
        await proxy.rows("UPDATE coll_letters SET done = false WHERE score = 2")
        sql = f"SELECT score FROM coll_letters WHERE {where} ORDER BY score"
        said = await proxy.query(sql, *params)
        if found is None:
            assert said.code == (400, "UNSUPPORTED_SQL")
        else:
            assert " ".join(str(row["score"]) for row in said.rows) == found

    at_proxy(tmp_path, work, letters=LETTERS)


def test_values_are_read_by_their_column(tmp_path: Path) -> None:
    """As Postgres does: a text is a number to a numeric column, a number is text to another."""
    columns = [
        column(type_.strip("[]") + "_", type_)
        for type_ in ("uuid", "bigint", "numeric", "date", "vector", "text", "boolean", "integer")
    ]
    columns = [c | ({"dimension": 2} if c["type"] == "vector" else {}) for c in columns]
    given: list[tuple[str, object, object]] = [
        ("bigint_", "9007199254740993", 9007199254740993),
        ("bigint_", " -5 ", -5),
        ("numeric_", "1.5", 1.5),
        ("numeric_", "3", 3),
        ("date_", "2026-02-28", "2026-02-28"),
        ("vector_", "[1, 0.5]", [1.0, 0.5]),
        ("vector_", [1, 0.5], [1.0, 0.5]),
        ("text_", 12, "12"),
        ("text_", True, "true"),
        ("boolean_", "f", False),
        ("uuid_", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ]
    wrong: list[tuple[str, object]] = [
        ("bigint_", "1.5"),
        ("bigint_", "x" * 100_000),
        ("integer_", 2**31),
        ("numeric_", "NaN"),
        ("numeric_", "1" * 400),
        ("date_", "2026-02-30"),
        ("vector_", "[1"),
        ("vector_", [1, 2, 3]),
        ("text_", {"a": 1}),
        ("text_", "a\0b"),
        ("boolean_", "perhaps"),
        ("uuid_", "1"),
        ("created_at", "soon"),
        ("created_at", None),
    ]

    async def work(proxy: Proxy) -> None:
        for name, value, kept in given:
            sql = f"INSERT INTO coll_letters ({name}) VALUES ($1) RETURNING {name}"
            assert await proxy.values(sql, value) == [kept]
        for name, bad in wrong:
            said = await proxy.query(f"INSERT INTO coll_letters ({name}) VALUES ($1)", bad)
            assert said.code == (400, "INVALID_VALUE"), (name, bad)
            assert said.body["error"]["details"]["column"] == name
        assert await proxy.rows("SELECT count(*) FROM coll_letters") == [{"count": len(given)}]

    at_proxy(tmp_path, work, letters=columns)


def test_many_rows_are_inserted_or_none(tmp_path: Path) -> None:
    """Several rows of one statement keep their order; one that is wrong leaves none."""

    async def work(proxy: Proxy) -> None:
        sql = "INSERT INTO public.coll_letters (title, score) VALUES ($1, 1), ('b', $2), "
        sql += "(DEFAULT, NULL) RETURNING title"
        assert await proxy.values(sql, "a", 2) == ["a", "b", None]
        assert (await proxy.query(sql, "a", "two")).code == (400, "INVALID_VALUE")
        titles = await proxy.values("SELECT title FROM coll_letters ORDER BY created_at")
        assert titles == ["a", "b", None]
        row = "UPDATE coll_letters SET title = DEFAULT WHERE title = 'a' RETURNING title"
        assert await proxy.values(row) == [None]

    at_proxy(tmp_path, work, letters=LETTERS)


def test_rules_of_a_collection_hold(tmp_path: Path) -> None:
    """Not null, unique, references; the id of a row stays (E.5)."""

    async def work(proxy: Proxy) -> None:
        desk = proxy.desk
        await desk.make(
            "users_of",
            column("email", nullable=False),
            indexes=[{"columns": ["email"], "unique": True}],
        )
        one = "INSERT INTO coll_users_of (email) VALUES ($1) RETURNING id"
        [first] = await proxy.values(one, "a@x")
        assert (await proxy.query(one, "a@x")).code == (409, "ROW_CONFLICT")
        assert (await proxy.query(one, None)).code == (400, "INVALID_VALUE")
        none = await proxy.query("INSERT INTO coll_users_of (user_id) VALUES ('u')")
        assert none.code == (400, "INVALID_VALUE")
        assert (await proxy.query("UPDATE coll_users_of SET email = NULL")).code == (
            400,
            "INVALID_VALUE",
        )
        await proxy.rows(one, "b@x")
        same = await proxy.query("UPDATE coll_users_of SET email = 'a@x'")
        assert same.code == (409, "ROW_CONFLICT")
        moved = await proxy.query("UPDATE coll_users_of SET id = $1", first)
        assert moved.code == (400, "UNSUPPORTED_SQL")
        await desk.make(
            "notes_of", column("owner", "uuid", references={"table": "users_of", "column": "id"})
        )
        await proxy.rows("INSERT INTO coll_notes_of (owner) VALUES ($1)", first)
        gone = await proxy.query("DELETE FROM coll_users_of")
        assert gone.code == (409, "ROW_CONFLICT")
        assert await proxy.values("SELECT email FROM coll_users_of") == ["a@x", "b@x"]

    at_proxy(tmp_path, work)


def test_a_changed_schema_is_known_at_once(tmp_path: Path) -> None:
    """A statement that was read before meets the columns that are there now."""

    async def work(proxy: Proxy) -> None:
        sql = "INSERT INTO coll_letters (title, extra) VALUES ('a', 'b') RETURNING extra"
        said = await proxy.query(sql)
        assert said.code == (400, "INVALID_COLUMN")
        assert "title, score" in said.message
        add = {"add_column": {"name": "extra", "type": "text", "nullable": True}}
        assert (await proxy.desk.admin("PATCH", "/letters", add)).status == 200
        assert await proxy.values(sql) == ["b"]
        assert (await proxy.desk.admin("DELETE", "/letters?confirm=letters")).status == 200
        assert (await proxy.query(sql)).code == (404, "COLLECTION_NOT_FOUND")

    at_proxy(tmp_path, work, letters=LETTERS)
