"""SQL of somebody who wants more than the rows of their project: refused, bounded, told why."""

# ruff: noqa: S608  # statements made of pieces are what is tested here

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.collections.desk import Desk, at_desk, column
from tests.router.services.edge_db.proxy import Proxy, ask, at_proxy

from amba_router.rows.statements import NotTaken
from amba_router.services.edge_db.binding import EdgeDb
from amba_router.services.edge_db.parser import parse
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.limits import Limit

LETTERS = (column("title"), column("score", "integer"))
INSERT = "INSERT INTO coll_letters (title) VALUES ($1)"
HERE = "SELECT title FROM coll_letters WHERE "

NOT_TAKEN = {
    "more than one": "SELECT title FROM coll_letters; DROP TABLE coll_letters",
    "nothing": "",
    "only a comment": "-- SELECT title FROM coll_letters",
    "a comment without end": "SELECT title /* FROM coll_letters",
    "a text without end": HERE + "title = 'a",
    "a name without end": 'SELECT "title FROM coll_letters',
    "DDL": "CREATE TABLE coll_mine (a int)",
    "DROP": "DROP TABLE coll_letters",
    "ALTER": "ALTER TABLE coll_letters ADD COLUMN a int",
    "TRUNCATE": "TRUNCATE coll_letters",
    "PRAGMA": "PRAGMA table_info(coll_letters)",
    "ATTACH": "ATTACH DATABASE '/etc/passwd' AS x",
    "VACUUM": "VACUUM INTO '/tmp/x'",
    "COPY": "COPY coll_letters TO PROGRAM 'sh'",
    "BEGIN": "BEGIN",
    "COMMIT": "COMMIT",
    "SET": "SET role postgres",
    "EXPLAIN": "EXPLAIN SELECT title FROM coll_letters",
    "VALUES": "VALUES (1)",
    "a CTE": "WITH x AS (DELETE FROM coll_letters RETURNING *) SELECT * FROM x",
    "UNION": "SELECT title FROM coll_letters UNION SELECT name FROM sqlite_master",
    "INTERSECT": "SELECT title FROM coll_letters INTERSECT SELECT 'a'",
    "JOIN": "SELECT * FROM coll_letters a JOIN coll_letters b ON a.id = b.id",
    "a cross join": "SELECT * FROM coll_letters, coll_letters b, coll_letters c",
    "LATERAL": "SELECT * FROM LATERAL (SELECT 1) x",
    "a query as a table": "SELECT * FROM (SELECT * FROM coll_letters) x",
    "a function as a table": "SELECT * FROM generate_series(1, 1000000000)",
    "GROUP BY": "SELECT title FROM coll_letters GROUP BY title",
    "HAVING": "SELECT count(*) FROM coll_letters HAVING count(*) > 1",
    "DISTINCT": "SELECT DISTINCT title FROM coll_letters",
    "FOR UPDATE": "SELECT title FROM coll_letters FOR UPDATE",
    "INTO": "SELECT title INTO coll_copy FROM coll_letters",
    "TABLESAMPLE": "SELECT title FROM coll_letters TABLESAMPLE SYSTEM (1)",
    "ONLY": "SELECT title FROM ONLY coll_letters",
    "a window": "SELECT row_number() OVER () FROM coll_letters",
    "load_extension": "SELECT load_extension('evil') FROM coll_letters",
    "randomblob": HERE + "title = randomblob(1000000000)",
    "zeroblob": "SELECT zeroblob(1000000000) FROM coll_letters",
    "pg_sleep": HERE + "pg_sleep(10) IS NULL",
    "readfile": HERE + "title = readfile('/etc/passwd')",
    "lower": HERE + "lower(title) = 'a'",
    "a quoted function": HERE + '"pg_sleep"(1) IS NULL',
    "CASE": HERE + "CASE WHEN title = 'a' THEN true END",
    "EXISTS": HERE + "EXISTS (SELECT 1)",
    "arithmetic": "UPDATE coll_letters SET score = score + 1",
    "concatenation": "UPDATE coll_letters SET title = title || 'x'",
    "a column of a column": HERE + "title = title",
    "a regular expression": HERE + "title ~ '(a+)+b'",
    "SIMILAR TO": HERE + "title SIMILAR TO 'a'",
    "ESCAPE": HERE + "title LIKE 'a' ESCAPE 'x'",
    "COLLATE": HERE + "title COLLATE \"C\" = 'a'",
    "a row": HERE + "(title, score) = ('a', 1)",
    "an array": HERE + "title = ANY(ARRAY['a'])",
    "an array as text": HERE + "title = ANY('{a}')",
    "jsonb": HERE + "title -> 'a' = 'b'",
    "nearest": "SELECT title FROM coll_letters ORDER BY title <=> $1",
    "an escape string": HERE + "title = E'\\x27'",
    "a unicode string": HERE + "title = U&'\\0027'",
    "a unicode name": 'SELECT U&"t\\0069tle" FROM coll_letters',
    "a bit string": HERE + "title = B'1'",
    "a dollar string": HERE + "title = $$a$$",
    "a tagged dollar string": HERE + "title = $x$a$x$",
    "a named parameter": HERE + "title = :title",
    "a question mark": HERE + "title = ?",
    "an at parameter": HERE + "title = @title",
    "parameter zero": HERE + "title = $0",
    "a backtick": "SELECT `title` FROM coll_letters",
    "brackets of another dialect": "SELECT [title] FROM coll_letters",
    "a NUL": "SELECT title FROM coll_letters\0",
    "a letter like a blank": "SELECT\u00a0title FROM coll_letters",
    "a letter like another": "SELECT title FROM c\u043ell_letters",
    "another schema": "SELECT title FROM main.coll_letters",
    "a temporary one": "SELECT title FROM temp.coll_letters",
    "a quoted one": 'SELECT title FROM "pg_catalog".coll_letters',
    "a column of another table": "SELECT sqlite_master.sql FROM coll_letters",
    "a table outside": HERE
    + "score IN (SELECT score FROM coll_letters x WHERE coll_letters.id = '')",
    "another table inside": HERE + "id IN (SELECT id FROM coll_other)",
    "the catalogue inside": HERE + "id IN (SELECT id FROM sqlite_master)",
    "another column inside": HERE + "title IN (SELECT score FROM coll_letters)",
    "two columns inside": HERE + "id IN (SELECT id, id FROM coll_letters)",
    "a count inside": HERE + "score IN (SELECT count(*) FROM coll_letters)",
    "USING": "DELETE FROM coll_letters USING coll_other",
    "FROM": "UPDATE coll_letters SET title = 'a' FROM coll_other",
    "ON CONFLICT": "INSERT INTO coll_letters (title) VALUES ('a') ON CONFLICT DO NOTHING",
    "INSERT of a query": "INSERT INTO coll_letters (title) SELECT sql FROM sqlite_master",
    "INSERT without columns": "INSERT INTO coll_letters VALUES ('a')",
    "a short row": "INSERT INTO coll_letters (title, score) VALUES ('a')",
    "a column twice": "INSERT INTO coll_letters (title, title) VALUES ('a', 'b')",
    "a column set twice": "UPDATE coll_letters SET title = 'a', title = 'b'",
    "LIKE of a number": HERE + "score LIKE '1'",
    "now as text": HERE + "title = now()",
    "a flag of text": HERE + "title",
    "a cast to another type": HERE + "title = $1::int",
    "a cast to no type": HERE + "title = $1::regclass",
    "a cast of a column": HERE + "title::int = 1",
    "a limit of now": "SELECT title FROM coll_letters LIMIT now()",
    "two limits": "SELECT title FROM coll_letters LIMIT 1 LIMIT 2",
    "an order by number": "SELECT title FROM coll_letters ORDER BY 1",
    "a number and letters": HERE + "score = 1x",
}


@pytest.mark.parametrize("what", NOT_TAKEN)
def test_what_is_not_on_the_list_is_refused(tmp_path: Path, what: str) -> None:
    """With its place, in words; nothing is read, nothing changed."""

    async def work(proxy: Proxy) -> None:
        await proxy.query(INSERT, "kept")
        sql = NOT_TAKEN[what]
        said = await proxy.query(sql, *["a"] * ("$1" in sql))
        assert said.code == (400, "UNSUPPORTED_SQL")
        assert said.message.startswith("$.sql")
        assert said.body["error"]["details"]["field"] == "$.sql"
        assert await proxy.values("SELECT title FROM coll_letters") == ["kept"]

    at_proxy(tmp_path, work, letters=LETTERS)


@pytest.mark.parametrize(
    "table",
    [
        *("sqlite_master", "projects", "coll_", "coll_1", "coll_2", "coll_nothing", "app_users"),
        *('"x""y"', '"coll_letters "', '"COLL_LETTERS"'),
        '"coll_letters""; DROP TABLE projects; --"',
    ],
)
def test_no_other_table_is_there(tmp_path: Path, table: str) -> None:
    """Neither the database's own nor the platform's, nor one by its name on the disk."""

    async def work(proxy: Proxy) -> None:
        for sql in (
            f"SELECT * FROM {table}",
            f"DELETE FROM {table}",
            f"UPDATE {table} SET title = 'a'",
            f"INSERT INTO {table} (title) VALUES ('a')",
        ):
            assert (await proxy.query(sql)).code == (404, "COLLECTION_NOT_FOUND")

    at_proxy(tmp_path, work, letters=LETTERS)


def test_another_projects_rows_are_nowhere(tmp_path: Path) -> None:
    """The socket's project is the only one: the same statements meet other collections."""

    async def work(desk: Desk) -> None:
        other = Desk(desk.world, await desk.world.project("Other"))
        database = EdgeDb(desk.world.states, desk.world.clock)
        ours, theirs = Proxy(desk, database), Proxy(other, database)
        await desk.make("letters", *LETTERS)
        await other.make("letters", *LETTERS)
        await other.make("secrets", column("word"))
        await theirs.query(INSERT, "theirs")
        await ours.query(INSERT, "ours")
        [id_] = await theirs.values("SELECT id FROM coll_letters")
        everything = "SELECT title FROM coll_letters"
        for sql, params in (
            ("DELETE FROM coll_letters WHERE id = $1", [id_]),
            ("UPDATE coll_letters SET title = 'x' WHERE id = $1", [id_]),
            ("UPDATE coll_letters SET title = 'x' WHERE id = ANY($1)", [[id_]]),
            ("SELECT * FROM coll_letters WHERE id = $1", [id_]),
        ):
            assert await ours.rows(sql, *params) == []
        for sql in ("SELECT * FROM coll_secrets", "DELETE FROM coll_secrets"):
            assert (await ours.query(sql)).code == (404, "COLLECTION_NOT_FOUND")
        assert await theirs.values(everything) == ["theirs"]
        assert await ours.values(everything) == ["ours"]
        # the same id may be another row of ours: it is no key beyond its collection
        mine = "INSERT INTO coll_letters (id, title) VALUES ($1, 'twin')"
        assert (await ours.query(mine, id_)).status == 200
        assert await theirs.values(everything) == ["theirs"]
        await ours.query("DELETE FROM coll_letters")
        assert await theirs.values(everything) == ["theirs"]

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    "hostile",
    ["'; DROP TABLE projects; --", '" OR ""="', "\\'; --", "%' OR 1=1 --", "$1", "\u2019 OR 1=1"],
)
def test_values_stay_values(tmp_path: Path, hostile: str) -> None:
    """In a parameter and in a text: they come back as they were."""

    async def work(proxy: Proxy) -> None:
        await proxy.query(INSERT, "other")
        sql = f"{INSERT} RETURNING title"
        assert await proxy.values(sql, hostile) == [hostile]
        quoted = hostile.replace("'", "''")
        assert await proxy.values(f"{HERE} title = '{quoted}'") == [hostile]
        assert await proxy.values(f"{HERE} title = ANY($1)", [hostile]) == [hostile]

    at_proxy(tmp_path, work, letters=LETTERS)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b"[]", "INVALID_INPUT"),
        (b"{}", "INVALID_INPUT"),
        (b'{"sql": 1}', "INVALID_INPUT"),
        (b'{"sql": "x", "params": {}}', "INVALID_INPUT"),
        (b'{"sql": "x", "params": "a"}', "INVALID_INPUT"),
        (b'{"sql": "\\ud800"}', "INVALID_JSON"),
        (b'{"sql": "x", "params": ' + b"[" * 100 + b"]" * 100 + b"}", "INVALID_JSON"),
        (b'{"sql": "x", "params": [NaN]}', "INVALID_JSON"),
    ],
)
def test_a_body_that_is_wrong_is_told_so(tmp_path: Path, body: bytes, code: str) -> None:
    """A 400 with a code, as elsewhere (ours: the page is silent)."""

    async def work(proxy: Proxy) -> None:
        assert (await ask(proxy.handler, body)).code == (400, code)

    at_proxy(tmp_path, work, letters=LETTERS)


@pytest.mark.parametrize(
    ("sql", "params", "code"),
    [
        ("SELECT title FROM coll_letters", [1], "UNSUPPORTED_SQL"),
        ("SELECT title FROM coll_letters LIMIT $1", [], "UNSUPPORTED_SQL"),
        ("SELECT title FROM coll_letters LIMIT $9", [1], "UNSUPPORTED_SQL"),
        ("SELECT title FROM coll_letters LIMIT -1", [], "INVALID_VALUE"),
        ("SELECT title FROM coll_letters LIMIT $1", [1.5], "INVALID_VALUE"),
        ("SELECT title FROM coll_letters OFFSET $1", ["x"], "INVALID_VALUE"),
        ("SELECT title FROM coll_letters OFFSET $1", [2**63], "INVALID_VALUE"),
        ("SELECT nothing FROM coll_letters", [], "INVALID_COLUMN"),
        ("SELECT title FROM coll_letters ORDER BY nothing", [], "INVALID_COLUMN"),
        ("DELETE FROM coll_letters RETURNING nothing", [], "INVALID_COLUMN"),
        ("UPDATE coll_letters SET nothing = 1", [], "INVALID_COLUMN"),
        (HERE + "title = ANY($1)", ["a"], "INVALID_VALUE"),
        (HERE + "title LIKE $1", [5], "INVALID_VALUE"),
        (HERE + "title LIKE $1", ["a\\"], "INVALID_VALUE"),
    ],
)
def test_a_statement_that_does_not_fit_is_told_so(
    tmp_path: Path, sql: str, params: list[object], code: str
) -> None:
    """Its parameters and its columns are those that are there."""

    async def work(proxy: Proxy) -> None:
        assert (await proxy.query(sql, *params)).code == (400, code)

    at_proxy(tmp_path, work, letters=LETTERS)


def test_only_one_address_answers(tmp_path: Path) -> None:
    """`POST /query`; and a body of 1 MiB, in pieces or not."""

    async def work(proxy: Proxy) -> None:
        sql = json.dumps({"sql": "SELECT title FROM coll_letters"}).encode()
        assert (await ask(proxy.handler, sql, target=b"/query?x=1")).status == 200
        assert (await ask(proxy.handler, sql, target=b"/")).code == (404, "NOT_FOUND")
        got = await ask(proxy.handler, sql, method="GET")
        assert got.code == (405, "METHOD_NOT_ALLOWED")
        most = limits.EDGE_DB_BODY.value
        full = sql + b" " * (most - len(sql))
        assert (await ask(proxy.handler, full[:500], full[500:])).status == 200
        assert (await ask(proxy.handler, full, b" ")).code == (413, "PAYLOAD_TOO_LARGE")

    at_proxy(tmp_path, work, letters=LETTERS)


def _most(limit: Limit, form: str, separator: str, word: str) -> tuple[str, str]:
    """A statement with as many as may be, and one with one more."""
    made = [form.format(separator.join([word] * count)) for count in (limit.value, limit.value + 1)]
    return made[0], made[1]


@pytest.mark.parametrize(
    ("fits", "passes"),
    [
        _most(limits.EDGE_DB_CONDITIONS, "SELECT a FROM coll_x WHERE {}", " OR ", "a = 1"),
        _most(limits.EDGE_DB_CONDITIONS, "SELECT {} FROM coll_x", ",", "a"),
        _most(limits.EDGE_DB_DEPTH, "SELECT a FROM coll_x WHERE {} a = 1", " ", "NOT"),
        _most(limits.COLLECTION_ORDER, "SELECT a FROM coll_x ORDER BY {}", ",", "a"),
        _most(limits.COLLECTION_BATCH, "INSERT INTO coll_x (a) VALUES {}", ",", "(1)"),
        _most(limits.COLLECTION_FILTER_IN, "SELECT a FROM coll_x WHERE a IN ({})", ",", "1"),
        (
            f"SELECT a FROM coll_x LIMIT ${limits.EDGE_DB_PARAMS.value}",
            f"SELECT a FROM coll_x LIMIT ${limits.EDGE_DB_PARAMS.value + 1}",
        ),
    ],
)
def test_a_statement_has_its_bounds(fits: str, passes: str) -> None:
    """Just inside it is read; one more is refused with the number (reliability.md)."""
    parse(fits)
    with pytest.raises(NotTaken, match=r"\d"):
        parse(passes)


@pytest.mark.parametrize(
    "absurd",
    [
        "SELECT * FROM coll_x WHERE " + "(" * 30_000,
        "SELECT * FROM coll_x WHERE " + "NOT " * 8_000 + "a",
        "SELECT * FROM coll_x WHERE a = " + "CAST(" * 6_000,
        "SELECT * FROM coll_x WHERE a = " + "-" * 1,
        "SELECT * FROM coll_x WHERE a IN " + "(SELECT a FROM coll_x WHERE a IN " * 900,
        "SELECT * FROM a" + " JOIN a" * 4_000,
        "/*" * 16_000,
        '"' * 32_001,
        "'" * 32_001,
        "$" * 32_000,
        "SELECT " + "9" * 32_000,
        "SELECT * FROM coll_x WHERE a = " + "1" * 32_000 + "e",
    ],
)
def test_an_absurd_statement_is_refused_in_one_pass(absurd: str) -> None:
    """No depth of brackets reaches the interpreter's own; nothing is tried twice."""
    with pytest.raises(NotTaken):
        parse(absurd)


def test_text_rows_and_answers_have_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the text, of lists, of rows changed and answered, of a row's size (limits.py)."""

    def small(name: str, value: int) -> None:
        monkeypatch.setattr(limits, name, replace(getattr(limits, name), value=value))

    async def work(proxy: Proxy) -> None:
        text = "SELECT title FROM coll_letters"
        full = text + " " * (limits.EDGE_DB_SQL.value - len(text))
        assert (await proxy.query(full)).rows == []
        assert (await proxy.query(full + " ")).code == (400, "UNSUPPORTED_SQL")
        some = ["x"] * limits.COLLECTION_FILTER_IN.value
        assert await proxy.rows(f"{HERE} title = ANY($1)", some) == []
        more = await proxy.query(f"{HERE} title = ANY($1)", [*some, "x"])
        assert more.code == (400, "INVALID_VALUE")
        five = " OR ".join(f"title = ANY(${n})" for n in range(1, 6))
        assert await proxy.rows(HERE + five, *[some] * 5) == []
        six = await proxy.query(f"{HERE}{five} OR title = ANY($6)", *[some] * 5, ["x"])
        assert six.code == (400, "UNSUPPORTED_SQL")
        pattern = "x" * limits.COLLECTION_PATTERN.value
        assert await proxy.rows(f"{HERE} title LIKE $1", pattern) == []
        longer = await proxy.query(f"{HERE} title LIKE $1 OR title ILIKE $2", pattern, "x")
        assert longer.code == (400, "INVALID_VALUE")

        small("COLLECTION_ROW_BYTES", 200)
        heavy = await proxy.query(INSERT, "x" * 200)
        assert heavy.code == (413, "PAYLOAD_TOO_LARGE")
        for _ in range(4):
            assert (await proxy.query(INSERT, "light")).status == 200
        heavy = await proxy.query("UPDATE coll_letters SET title = $1", "x" * 200)
        assert heavy.code == (413, "PAYLOAD_TOO_LARGE")

        small("EDGE_DB_ROWS", 3)
        for sql in (
            text,
            "UPDATE coll_letters SET title = 'changed'",
            "DELETE FROM coll_letters",
        ):
            assert (await proxy.query(sql)).code == (413, "RESULT_TOO_LARGE")
            assert len(await proxy.rows(f"{text} LIMIT 3")) == 3
        small("EDGE_DB_ANSWER", 40)
        assert len(await proxy.rows(f"{text} LIMIT 2")) == 2
        assert (await proxy.query(f"{text} LIMIT 3")).code == (413, "RESULT_TOO_LARGE")
        returned = "UPDATE coll_letters SET title = 'changed' WHERE id = ANY($1) RETURNING id"
        ids = [row["id"] for row in await proxy.desk.all("letters")][:2]
        assert (await proxy.query(returned, ids)).code == (413, "RESULT_TOO_LARGE")
        titles = [row["title"] for row in await proxy.desk.all("letters")]
        assert titles == ["light"] * 4

    at_proxy(tmp_path, work, letters=LETTERS)


def test_patterns_that_nearly_fit_end_in_time(tmp_path: Path) -> None:
    """Each look at such a text takes long: the clock is looked at more often, then."""

    async def work(desk: Desk) -> None:
        clock = _Hasty()
        proxy = Proxy(desk, EdgeDb(desk.world.states, clock))
        await desk.make("letters", *LETTERS)
        for _ in range(30):
            await proxy.query(INSERT, "a" * 3_000)
        clock.hasty = 1
        slow = "UPDATE coll_letters SET title = 'x' WHERE title LIKE $1"
        assert (await proxy.query(slow, "%" + "a" * 998 + "b")).code == (408, "STATEMENT_TIMEOUT")
        # thirty rows are few steps: a short pattern is through before anybody looks
        assert (await proxy.query(f"{HERE} title LIKE $1", "%b")).rows == []

    at_desk(tmp_path, work)


class _Hasty(ManualClock):
    """A clock on which each look costs so many seconds, once it is told to."""

    hasty = 0.0

    def monotonic_s(self) -> float:
        self._monotonic_s += self.hasty
        return super().monotonic_s()


@pytest.mark.parametrize("steps", [1, 100])
def test_a_statement_that_takes_too_long_ends_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """It is interrupted, nothing of it is done; those that share its transaction are."""
    monkeypatch.setattr(limits, "EDGE_DB_STEPS", replace(limits.EDGE_DB_STEPS, value=steps))

    async def work(desk: Desk) -> None:
        clock = _Hasty()
        slow = Proxy(desk, EdgeDb(desk.world.states, clock))
        fast = Proxy(desk)
        await desk.make("letters", *LETTERS)
        row = ", ".join(["('a')"] * 200)
        await fast.rows(f"INSERT INTO coll_letters (title) VALUES {row}")
        clock.hasty = 1
        for sql in (
            "SELECT title FROM coll_letters ORDER BY title",
            "SELECT count(*) FROM coll_letters WHERE title LIKE '%a%'",
            "UPDATE coll_letters SET title = 'late'",
            "DELETE FROM coll_letters WHERE title <> 'b'",
        ):
            said, *others = await asyncio.gather(
                slow.query(sql), *(fast.query(INSERT, "b") for _ in range(5))
            )
            assert said.code == (408, "STATEMENT_TIMEOUT")
            assert [other.status for other in others] == [200] * 5
        clock.hasty = 0
        titles = await slow.values("SELECT title FROM coll_letters")
        assert sorted(titles) == ["a"] * 200 + ["b"] * 20

    at_desk(tmp_path, work)


def test_a_change_that_runs_out_of_time_is_undone_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the transaction that it shares with others, after some of its rows were changed."""

    async def work(desk: Desk) -> None:
        clock = _Hasty()
        slow = Proxy(desk, EdgeDb(desk.world.states, clock))
        fast = Proxy(desk)
        await desk.make("letters", *LETTERS)
        row = ", ".join(["('a')"] * 400)
        await fast.rows(f"INSERT INTO coll_letters (title) VALUES {row}")
        state = await desk.world.states.state()

        async def late(sql: str) -> None:
            # it has found its rows; from here on the time flies
            sent = asyncio.ensure_future(slow.query(sql))
            changing = asyncio.Event()
            write = state.database.write

            async def watched(work: Callable[[Any], Any]) -> Any:
                clock.hasty = 1
                changing.set()
                return await write(work)

            monkeypatch.setattr(state.database, "write", watched)
            await changing.wait()
            monkeypatch.setattr(state.database, "write", write)
            others = await asyncio.gather(*(fast.query(INSERT, "b") for _ in range(5)))
            assert (await sent).code == (408, "STATEMENT_TIMEOUT")
            assert [other.status for other in others] == [200] * 5
            clock.hasty = 0

        await late("UPDATE coll_letters SET title = 'late' WHERE title = 'a'")
        await late("DELETE FROM coll_letters WHERE title = 'a'")
        await late("DELETE FROM coll_letters WHERE title = 'a' RETURNING *")
        titles = await fast.values("SELECT title FROM coll_letters")
        assert sorted(titles) == ["a"] * 400 + ["b"] * 15

    at_desk(tmp_path, work)


def test_a_row_is_taken_once(tmp_path: Path) -> None:
    """Of many who want it under a condition, one gets it: rows are looked at once more."""

    async def work(proxy: Proxy) -> None:
        await proxy.rows(INSERT, "free")
        take = "UPDATE coll_letters SET title = $1 WHERE title = 'free' RETURNING title"
        said = await asyncio.gather(*(proxy.rows(take, f"taken by {n}") for n in range(20)))
        winners = [rows[0]["title"] for rows in said if rows]
        assert len(winners) == 1
        assert await proxy.values("SELECT title FROM coll_letters") == winners
        gone = await asyncio.gather(
            *(proxy.rows("DELETE FROM coll_letters RETURNING id") for _ in range(5))
        )
        assert sum(len(rows) for rows in gone) == 1

    at_proxy(tmp_path, work, letters=LETTERS)


def test_many_at_once_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of a project look for rows at once: the threads of a node are for all (limits.py)."""

    async def work(proxy: Proxy) -> None:
        store = proxy.desk.world.states
        database = (await store.state()).database
        read = database.read
        now = most = 0

        async def counted(work: Callable[[Any], Any]) -> Any:
            nonlocal now, most
            now += 1
            most = max(most, now)
            try:
                return await read(work)
            finally:
                now -= 1

        monkeypatch.setattr(database, "read", counted)
        await asyncio.gather(*(proxy.query(f"{HERE} title = '{n}'") for n in range(20)))
        assert most == limits.EDGE_DB_PROJECT.value
        assert now == 0

    at_proxy(tmp_path, work, letters=LETTERS)


def test_what_was_read_is_kept_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement is read once; the latest are kept, and long ones are not."""
    monkeypatch.setattr(limits, "EDGE_DB_KEPT", replace(limits.EDGE_DB_KEPT, value=2))

    async def work(proxy: Proxy) -> None:
        seen: list[str] = []

        def reading(sql: str) -> object:
            seen.append(sql[-1])
            return parse(sql)

        from amba_router.services.edge_db import service

        monkeypatch.setattr(service, "parse", reading)
        text = "SELECT title FROM coll_letters LIMIT "
        for end in "1121312":
            await proxy.query(text + end)
        assert "".join(seen) == "1232"
        long = text + " " * limits.EDGE_DB_KEPT_SQL.value + "5"
        for _ in range(2):
            await proxy.query(long)
        assert "".join(seen) == "123255"

    at_proxy(tmp_path, work, letters=LETTERS)


def test_a_failure_of_ours_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 INTERNAL without its words; they are in the log."""

    async def work(proxy: Proxy) -> None:
        from amba_router.services.edge_db import service

        def broken(sql: str) -> object:
            raise ZeroDivisionError("a secret of the house")

        await proxy.query("SELECT title FROM coll_letters")
        monkeypatch.setattr(service, "parse", broken)
        said = await proxy.query("SELECT title FROM coll_letters LIMIT 1")
        assert said.code == (500, "INTERNAL")
        assert "secret" not in said.message
        assert "a secret of the house" in caplog.text

    at_proxy(tmp_path, work, letters=LETTERS)
