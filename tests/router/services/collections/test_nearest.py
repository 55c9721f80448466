"""Find-nearest: distances, filters, pages, on both planes (contract E.5)."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World
from tests.router.services.collections.desk import Desk, at_desk, column
from tests.router.services.collections.shelf import BOOKS, Shelf

from amba_router.api.faults import Refused
from amba_router.rows.columns import to_stored
from amba_router.services.collections.building import EVERYONE
from amba_router.services.collections.nearest import Nearest, Ranking, embedded, parse_nearest
from amba_router.services.collections.nearest_service import NearestService
from amba_router.store.collection_tables import CollectionTables
from amba_router.store.project_store import ProjectStore
from amba_runtime import limits

PLACE = next(column for column in BOOKS.all_columns if column.name == "place")

AT = {"column": "place", "to_vector": [1, 0, 0]}


def naive(distance: str, one: Sequence[float], other: Sequence[float]) -> float:
    """As pgvector defines it."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    if distance == "inner_product":
        return -product
    if distance == "l2":
        return math.dist(one, other)
    return 1 - product / math.hypot(*one) / math.hypot(*other)


def refused(options: dict[str, Any], code: str = "INVALID_QUERY") -> tuple[str, str]:
    """(place, message) of the refusal."""
    with pytest.raises(Refused) as caught:
        parse_nearest(BOOKS, options)
    problem = caught.value.problem
    assert (problem.status, problem.code) == (400, code)
    return problem.details["field"], problem.message


@pytest.mark.parametrize("distance", ["cosine", "l2", "inner_product"])
def test_the_nearest_are_those_of_plain_python(tmp_path: Path, distance: str) -> None:
    """Each distance, over rows of which some have no vector, page by page (E.5)."""

    async def work(desk: Desk) -> None:
        chosen = random.Random(7)
        await desk.make("books", column("embedding", "vector", dimension=8), column("n", "integer"))
        rows: list[dict[str, Any]] = [
            {"n": n, "embedding": [chosen.randint(-3, 3) + 0.5 for _ in range(8)]}
            for n in range(60)
        ]
        rows += [{"n": 60 + n} for n in range(3)]
        got = await desk.admin("POST", "/books/rows:batch", {"rows": rows})
        target = [float(chosen.randint(-3, 3)) for _ in range(8)]
        wanted = [
            (naive(distance, row["embedding"], target), row["id"])
            for row in got.data
            if row["embedding"] is not None and row["n"] % 2
        ]
        wanted.sort()
        asked = {
            "to_vector": target,
            "distance": distance,
            "k": 7,
            "where": {"n": {"in": list(range(1, 63, 2))}},
        }
        seen: list[tuple[float, str]] = []
        cursor: str | None = None
        while cursor is not None or not seen:
            body = asked | {"cursor": cursor}
            got = await desk.admin("POST", "/books/rows/find-nearest", body)
            assert got.status == 200
            seen += [(row["_distance"], row["id"]) for row in got.data]
            cursor = got.body["next_cursor"]
        assert [distance for distance, _ in seen] == pytest.approx([d for d, _ in wanted])
        assert {id_ for _, id_ in seen} == {id_ for _, id_ in wanted}
        assert len(seen) == len(wanted) == 30
        assert seen == sorted(seen)

    at_desk(tmp_path, work)


def test_each_user_finds_their_own(tmp_path: Path) -> None:
    """Scoped and without what was deleted, as every read of the client plane; both spellings."""

    async def work(desk: Desk) -> None:
        await desk.make("books", column("embedding", "vector", dimension=2), column("t"))
        for user, text in (("u1", "mine"), ("u1", "gone"), ("u2", "theirs")):
            await desk.client("POST", "/books", {"t": text, "embedding": [1, 1]}, user)
        await desk.client("DELETE", "/books", {"where": {"t": "gone"}})
        near = "/books/find-nearest"
        got = await desk.client("POST", near, {"to_vector": [1, 1]})
        assert [row["t"] for row in got.data] == ["mine"]
        assert got.data[0]["_distance"] == 0
        assert got.data[0]["embedding"] == [1, 1]
        assert got.body["next_cursor"] is None
        asked: dict[str, Any] = {"vector_field": "embedding", "query_vector": [1, 0], "k": 1}
        got = await desk.client("POST", near, asked | {"include_deleted": True})
        assert got.data[0]["_distance"] == pytest.approx(1 - math.sqrt(0.5))
        assert got.body["next_cursor"] is not None
        cursor = {"cursor": got.body["next_cursor"], "include_deleted": True}
        got = await desk.client("POST", near, asked | cursor)
        assert ({row["t"] for row in got.data} <= {"mine", "gone"}, len(got.data)) == (True, 1)
        assert (await desk.client("POST", near, asked | cursor, "u2")).said == (
            400,
            "INVALID_CURSOR",
        )
        got = await desk.client("POST", near, {**asked, "filter": {"t": "theirs"}})
        assert got.data == []
        got = await desk.client("POST", near, asked, "")
        assert got.said == (401, "UNAUTHORIZED")
        for path in ("/nope/find-nearest", "/Books/find-nearest"):
            assert (await desk.client("POST", path, asked)).said == (404, "COLLECTION_NOT_FOUND")

    at_desk(tmp_path, work)


def test_a_text_is_compared_by_what_the_gateway_makes_of_it(tmp_path: Path) -> None:
    """Rows whose vectors the gateway made of texts; another text is nearest to the one it shares
    words with (contract E.5, E.10).
    """
    texts = ("a tale of two cities", "how to bake bread", "the engine of a steam ship")

    async def work(desk: Desk) -> None:
        await desk.make("books", column("embedding", "vector", dimension=256), column("t"))
        project = desk.project["id"]
        for text in texts:
            body = {
                "provider": "openai",
                "model": "text-embedding-3-small",
                "input": text,
                "dimensions": 256,
            }
            told = await desk.world.post(f"/v1/admin/projects/{project}/ai/embeddings", body)
            row = {"t": text, "embedding": told.data["embeddings"][0]}
            assert (await desk.client("POST", "/books", row)).status == 201
        for asked, nearest in (("baking a bread", texts[1]), ("cities and their tale", texts[0])):
            got = await desk.client("POST", "/books/find-nearest", {"to_text": asked, "k": 1})
            assert got.data[0]["t"] == nearest

    at_desk(tmp_path, work)


def test_another_projects_collection_is_not_there(tmp_path: Path) -> None:
    """404 for its name, with whichever credential (issue 5, line 2)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            ours, theirs = Desk(world, await world.project()), Desk(world, await world.project("B"))
            await theirs.make("books", column("embedding", "vector", dimension=2))
            body = {"to_vector": [1, 1]}
            got = await ours.client("POST", "/books/find-nearest", body)
            assert got.said == (404, "COLLECTION_NOT_FOUND")
            got = await ours.admin("POST", "/books/rows/find-nearest", body)
            assert got.said == (404, "COLLECTION_NOT_FOUND")

    asyncio.run(main())


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "$.column", "books has no vector column 'embedding'; it has place"),
    ({"column": "place"}, "$", "needs to_vector"),
    ({"column": "title", "to_vector": [1]}, "$.column", "has no vector column 'title'"),
    ({"vector_field": "nope", "to_vector": [1]}, "$.vector_field", "has no vector column 'nope'"),
    ({"column": 5, "to_vector": [1]}, "$.column", "has no vector column '5'"),
    (AT | {"vector_field": "place"}, "$.vector_field", "means the same as column"),
    (AT | {"query_vector": [1, 0, 0]}, "$.query_vector", "means the same as to_vector"),
    (AT | {"to_text": "a"}, "$", "and not both"),
    (AT | {"to_vector": [1, 0]}, "$.to_vector", "send 3 numbers, not 2"),
    (AT | {"to_vector": [1, 0, "0"]}, "$.to_vector", "an array of finite numbers"),
    (AT | {"to_vector": "near"}, "$.to_vector", "an array of finite numbers"),
    (AT | {"to_vector": [0, 0.0, -0.0]}, "$.to_vector", "has no direction"),
    (AT | {"to_vector": [1e39, 0, 0]}, "$.to_vector", "numbers of 32 bits"),
    ({"column": "place", "to_text": ""}, "$.to_text", "not blank"),
    ({"column": "place", "to_text": 5}, "$.to_text", "must be text"),
    (AT | {"distance": "hamming"}, "$.distance", "one of cosine, l2, inner_product"),
    (AT | {"distance": ["l2"]}, "$.distance", "one of cosine"),
    (AT | {"k": 0}, "$.k", "whole number, 1 or more"),
    (AT | {"k": "5"}, "$.k", "whole number"),
    (AT | {"limit": 5}, "$.limit", "no such option"),
    (AT | {"include_deleted": "no"}, "$.include_deleted", "true or false"),
    (AT | {"embedding_model": ""}, "$.embedding_model", "text of 1 to 200"),
    (AT | {"embedding_provider": 5}, "$.embedding_provider", "text of 1 to 200"),
]


@pytest.mark.parametrize(("options", "place", "said"), BAD)
def test_a_bad_option_is_refused_at_its_place(
    options: dict[str, Any], place: str, said: str
) -> None:
    """INVALID_QUERY with `details.field`."""
    where, message = refused(options)
    assert where == place
    assert said in message


def test_what_a_find_refuses_is_refused_here() -> None:
    """Filters and cursors."""
    assert refused(AT | {"where": {"nope": 1}}, "INVALID_FILTER")[0] == "$.where"
    for cursor in ("x", 5):
        assert refused(AT | {"cursor": cursor}, "INVALID_CURSOR")[0] == "$.cursor"


def test_ten_are_given_and_a_hundred_at_most() -> None:
    """`k` is 10, and 100 where it is more (E.5)."""
    assert parse_nearest(BOOKS, AT).k == 10
    assert parse_nearest(BOOKS, AT | {"k": 101}).k == 100


def test_a_text_is_as_long_as_it_may_be() -> None:
    """32 KiB; one byte more is refused."""
    most = limits.COLLECTION_NEAREST_TEXT.value
    assert parse_nearest(BOOKS, {"column": "place", "to_text": "a" * most}).text
    assert "bytes at most" in refused({"column": "place", "to_text": "a" * (most + 1)})[1]


def vector(*numbers: float) -> bytes:
    """As the column keeps it."""
    stored = to_stored(PLACE, list(numbers), "$")
    assert isinstance(stored, bytes)
    return stored


def ranked(wanted: Nearest, *rows: tuple[str, bytes]) -> list[tuple[float, str]]:
    """What a ranking says of rows."""
    ranking = Ranking(wanted, wanted.vector)
    for row in rows:
        ranking.add([row])
    return ranking.nearest()[0]


def test_what_has_no_direction_is_near_to_nothing() -> None:
    """A vector of zeros has no cosine; the other distances know it."""
    rows = (("a", vector(0, 0, 0)), ("b", vector(0, 1, 0)))
    assert ranked(parse_nearest(BOOKS, AT), *rows) == [(1.0, "b")]
    far = parse_nearest(BOOKS, AT | {"distance": "l2"})
    assert ranked(far, *rows) == [(1.0, "a"), (math.sqrt(2), "b")]


def test_equals_come_by_id() -> None:
    """So that pages never differ."""
    rows = [(id_, vector(1, 0, 0)) for id_ in "cab"]
    assert ranked(parse_nearest(BOOKS, AT | {"k": 2}), *rows) == [(0.0, "a"), (0.0, "b")]


def test_more_rows_than_may_be_compared_are_refused() -> None:
    """100,000; one more asks for a filter."""
    wanted = parse_nearest(BOOKS, AT)
    chunk = [("a", vector(1, 0, 0))] * 10_000
    ranking = Ranking(wanted, wanted.vector)
    for _ in range(limits.COLLECTION_NEAREST_SCAN.value // len(chunk)):
        ranking.add(chunk)
    with pytest.raises(Refused, match="more than 100000 rows would be compared"):
        ranking.add(chunk[:1])


def test_rows_are_compared_a_few_at_a_time() -> None:
    """However many: the scan hands over chunks, and the nearest of all chunks are found."""
    from amba_router.store.row_pages import vector_chunks

    with Shelf() as shelf:
        count = 2 * limits.COLLECTION_NEAREST_CHUNK.value + 1
        kept = [shelf.put({"place": [1, n, 0]})["id"] for n in range(count)]
        wanted = parse_nearest(BOOKS, AT)
        table = shelf.rows.table
        chunks = list(vector_chunks(shelf.connection, table, wanted.column, wanted.filter))
        assert [len(chunk) for chunk in chunks] == [256, 256, 1]
        ranking = Ranking(wanted, wanted.vector)
        for chunk in reversed(chunks):
            ranking.add(chunk)
        assert [id_ for _, id_ in ranking.nearest()[0]] == kept[:10]


class Gateway:
    """An embedder that remembers what it was asked."""

    def __init__(self, *made: float) -> None:
        self.made = made
        self.asked: list[tuple[str, str, str, str, int]] = []

    async def __call__(
        self, project_id: str, text: str, *, provider: str, model: str, dimension: int
    ) -> Sequence[float]:
        self.asked.append((project_id, text, provider, model, dimension))
        return self.made


def test_a_text_becomes_a_vector(tmp_path: Path) -> None:
    """By the model that is asked for, `text-embedding-3-small` where none is (E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("books", column("embedding", "vector", dimension=2), column("t"))
        await desk.insert("books", t="far", embedding=[0, 1])
        await desk.insert("books", t="near", embedding=[3, 0])
        gateway, id_ = Gateway(1, 0), desk.project["id"]
        service = NearestService(ProjectStore(desk.world.states), CollectionTables(), gateway)
        rows, cursor = await service.find(id_, "books", EVERYONE, {"to_text": "tales"})
        assert ([row["t"] for row in rows], cursor) == (["near", "far"], None)
        named = {"to_text": "tales", "embedding_model": "m", "embedding_provider": "p", "k": 1}
        _, cursor = await service.find(id_, "books", EVERYONE, named)
        rows, _ = await service.find(id_, "books", EVERYONE, named | {"cursor": cursor})
        assert [row["t"] for row in rows] == ["far"]
        assert gateway.asked == [
            (id_, "tales", "openai", "text-embedding-3-small", 2),
            *[(id_, "tales", "p", "m", 2)] * 2,
        ]
        gateway.made = (1, 0, 0)
        with pytest.raises(Refused, match="makes 3 numbers, and embedding has 2"):
            await service.find(id_, "books", EVERYONE, {"to_text": "tales"})

    at_desk(tmp_path, work)


def test_a_text_is_refused_before_the_gateway_is_asked(tmp_path: Path) -> None:
    """A bad call costs nothing."""

    async def work(desk: Desk) -> None:
        await desk.make("books", column("embedding", "vector", dimension=2))
        gateway = Gateway(1, 0)
        service = NearestService(ProjectStore(desk.world.states), CollectionTables(), gateway)
        for name, more in (("books", {"k": 0}), ("books", {"column": "x"}), ("nope", {})):
            with pytest.raises(Refused):
                await service.find(desk.project["id"], name, EVERYONE, {"to_text": "a", **more})
        assert gateway.asked == []

    at_desk(tmp_path, work)


def test_a_column_that_changed_meanwhile_is_a_conflict(tmp_path: Path) -> None:
    """While the gateway thought, the collection was made anew: 409, and nothing is compared."""

    async def work(desk: Desk) -> None:
        async def slow(*_: object, **__: object) -> Sequence[float]:
            await desk.admin("DELETE", "/books?confirm=books")
            await desk.make("books", column("embedding", "vector", dimension=3))
            return (1, 0)

        await desk.make("books", column("embedding", "vector", dimension=2))
        service = NearestService(ProjectStore(desk.world.states), CollectionTables(), slow)
        with pytest.raises(Refused) as caught:
            await service.find(desk.project["id"], "books", EVERYONE, {"to_text": "a"})
        assert (caught.value.problem.status, caught.value.problem.code) == (409, "CONFLICT")

    at_desk(tmp_path, work)


def test_an_embedding_is_kept_as_the_column_does() -> None:
    """Little-endian, 32 bits each."""
    wanted = parse_nearest(BOOKS, {"column": "place", "to_text": "a"})
    assert embedded(wanted, [1, 0.5, -2]) == vector(1, 0.5, -2)
