"""What a filter may be, and how a bad one is refused (E.5; issue 5, bad input)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.router.services.collections.naive import TYPES
from tests.router.services.collections.shelf import BOOKS, Shelf

from amba_router.api.faults import Refused
from amba_router.rows.columns import Column
from amba_router.rows.filters import (
    EVERYTHING,
    All,
    Leaf,
    Op,
    filter_of,
    parse_filter,
    parse_where,
)
from amba_router.store.collection_tables import Reach
from amba_router.store.filter_sql import condition
from amba_router.store.sql_functions import interrupted
from amba_runtime import limits

TITLE = next(column for column in BOOKS.all_columns if column.name == "title")
COUNT = next(column for column in BOOKS.all_columns if column.name == "count")


def refused(options: dict[str, Any]) -> tuple[str, str]:
    """(place, message) of the refusal."""
    with pytest.raises(Refused) as caught:
        filter_of(BOOKS, options)
    problem = caught.value.problem
    assert (problem.status, problem.code) == (400, "INVALID_FILTER")
    return problem.details["field"], problem.message


@pytest.mark.parametrize("key", ["where", "filter"])
@pytest.mark.parametrize(
    "given",
    [
        {"and": [{"title": "a"}, {"count": {"gt": 1}}]},
        {"and": [{"column": "title", "op": "eq", "value": "a"},
                 {"column": "count", "op": "gt", "value": 1}]},
        {"title": "a", "count": {"gt": 1}},
    ],
)  # fmt: skip
def test_each_key_takes_either_language(key: str, given: dict[str, Any]) -> None:
    """`where` and `filter` both take both (E.5: DSLs to accept)."""
    wanted = All((Leaf(TITLE, Op.EQ, "a"), Leaf(COUNT, Op.GT, 1)))
    assert filter_of(BOOKS, {key: given}) == wanted


def test_no_filter_is_everything() -> None:
    """Absent, null and empty are the same, in both."""
    assert filter_of(BOOKS, {}) == EVERYTHING
    assert filter_of(BOOKS, {"where": None, "filter": None}) == EVERYTHING
    assert parse_where(BOOKS, {}) == EVERYTHING
    assert parse_filter(BOOKS, {}) == EVERYTHING


def test_all_operators_of_one_column_hold() -> None:
    """The functions SDK ignores all but the first: a bug that is not reproduced (E.5)."""
    with Shelf() as shelf:
        kept = [shelf.put({"count": count})["id"] for count in range(5)]
        assert shelf.ids(where={"count": {"lt": 4, "gte": 1, "ne": 2}}) == [kept[1], kept[3]]


@pytest.mark.parametrize("spelling", ["not_in", "notIn"])
def test_both_spellings_stand_in_both_languages(spelling: str) -> None:
    """Snake and camel case (E.5: operators)."""
    leaf = Leaf(COUNT, Op.NOT_IN, (1,))
    assert parse_where(BOOKS, {"count": {spelling: [1]}}) == leaf
    assert parse_filter(BOOKS, {"column": "count", "op": spelling, "value": [1]}) == leaf


@pytest.mark.parametrize("value", [{}, {"value": None}, {"value": True}])
def test_null_tests_of_4x_carry_no_value(value: dict[str, Any]) -> None:
    """`is_null` stands alone; null or true beside it say nothing more (E.5)."""
    wanted = Leaf(TITLE, Op.IS_NULL)
    assert parse_filter(BOOKS, {"column": "title", "op": "is_null", **value}) == wanted


BAD_WHERE: list[tuple[Any, str, str]] = [
    ([], "$.where", "must be an object"),
    ("title", "$.where", "must be an object"),
    ({"and": "title"}, "$.where.and", "needs an array"),
    ({"nope": 1}, "$.where", "has no column 'nope'; it has id, user_id, title"),
    ({"TITLE": "a"}, "$.where", "has no column 'TITLE'"),
    ({'title"; DROP TABLE coll_1; --': 1}, "$.where", "has no column"),
    ({"and": []}, "$.where.and", "needs an array of one condition or more"),
    ({"or": {"title": "a"}}, "$.where.or", "needs an array"),
    ({"and": [{"title": "a"}, {}]}, "$.where.and[1]", "an empty object says nothing"),
    ({"not": {}}, "$.where.not", "an empty object says nothing"),
    ({"not": [{"title": "a"}]}, "$.where.not", "must be an object"),
    ({"or": [{"title": "a"}, 5]}, "$.where.or[1]", "must be an object"),
    ({"title": {}}, "$.where.title", "needs an operator"),
    (
        {"title": {"regex": "a"}},
        "$.where.title.'regex'",
        "unknown operator 'regex' on column title",
    ),
    ({"title": {"EQ": "a"}}, "$.where.title.'EQ'", "unknown operator"),
    ({"title": 1}, "$.where.title", "column title is text"),
    ({"title": {"eq": None}}, "$.where.title.eq", "nothing is eq null; use is_null"),
    ({"title": {"isNull": False}}, "$.where.title.isNull", "takes true; its opposite is is_not"),
    ({"title": {"isNotNull": 1}}, "$.where.title.isNotNull", "takes true; its opposite is is_n"),
    ({"title": "a\0b"}, "$.where.title", "column title is text"),
    ({"title": {"like": 5}}, "$.where.title.like", "needs text"),
    ({"title": {"like": "a\0"}}, "$.where.title.like", "needs text without NUL"),
    ({"title": {"ilike": "a\\"}}, "$.where.title.ilike", "single backslash"),
    ({"title": {"like": "\\\\\\"}}, "$.where.title.like", "single backslash"),
    ({"title": {"in": "a"}}, "$.where.title.in", "needs an array"),
    ({"title": {"in": ["a", 1]}}, "$.where.title.in[1]", "column title is text"),
    ({"title": {"contains": "a"}}, "$.where.title.'contains'", "contains is not for text"),
    ({"count": {"like": "1%"}}, "$.where.count.'like'", "like is not for integer"),
    ({"count": "1"}, "$.where.count", "column count is integer"),
    ({"count": 1.5}, "$.where.count", "column count is integer"),
    ({"count": True}, "$.where.count", "column count is integer"),
    ({"count": 2**31}, "$.where.count", "column count is integer"),
    ({"large": 2**63}, "$.where.large", "column large is bigint"),
    ({"ratio": "0.1"}, "$.where.ratio", "column ratio is numeric"),
    ({"done": 1}, "$.where.done", "column done is boolean"),
    ({"at": "yesterday"}, "$.where.at", "column at is timestamptz"),
    ({"at": 5}, "$.where.at", "column at is timestamptz"),
    ({"day": "2024-02-30"}, "$.where.day", "column day is date"),
    ({"id": "1"}, "$.where.id", "column id is uuid"),
    ({"extra": {"gt": 1}}, "$.where.extra.'gt'", "gt is not for jsonb"),
    ({"extra": {"a": 1}}, "$.where.extra.'a'", "unknown operator 'a' on column extra"),
    ({"extra": {"overlaps": "a"}}, "$.where.extra.overlaps", "needs an array"),
    ({"extra": {"contains": None}}, "$.where.extra.contains", "nothing is contains null"),
    ({"tags": {"lte": ["a"]}}, "$.where.tags.'lte'", "lte is not for text[]"),
    ({"tags": {"contains": [1]}}, "$.where.tags.contains", "column tags is text[]"),
    ({"marks": {"contains": ["1"]}}, "$.where.marks.contains", "column marks is integer[]"),
    ({"place": [1, 2, 3]}, "$.where.place", "eq is not for vector"),
    ({"place": {"in": []}}, "$.where.place.'in'", "in is not for vector"),
]


@pytest.mark.parametrize(("given", "place", "said"), BAD_WHERE)
def test_a_bad_where_is_refused_at_its_place(given: Any, place: str, said: str) -> None:
    """INVALID_FILTER with `details.field` and what to do (issue 5, bad input)."""
    where, message = refused({"where": given})
    assert where == place
    assert said in message


BAD_TREES: list[tuple[Any, str, str]] = [
    ([], "$.filter", "must be an object"),
    ({"column": "title"}, "$.filter", 'must be {"column", "op", "value"}'),
    ({"column": "title", "op": 5, "value": 1}, "$.filter", 'must be {"column"'),
    ({"column": 5, "op": "eq", "value": 1}, "$.filter", 'must be {"column"'),
    ({"column": "title", "op": "eq"}, "$.filter", "eq needs a value"),
    ({"column": "title", "op": "eq", "value": None}, "$.filter.value", "nothing is eq null"),
    ({"column": "title", "op": "eq", "value": "a", "x": 1}, "$.filter", 'must be {"column"'),
    ({"column": "nope", "op": "eq", "value": 1}, "$.filter.column", "has no column 'nope'"),
    ({"column": "title", "op": "=", "value": 1}, "$.filter.op", "unknown operator '='"),
    ({"column": "title", "op": "is_null", "value": 0}, "$.filter.value", "takes no value"),
    ({"column": "title", "op": "is_null", "value": False}, "$.filter.value", "takes no value"),
    ({"and": [{"column": "title", "op": "is_null"}, {}]}, "$.filter.and[1]", 'must be {"column"'),
    (
        {"or": [{"column": "title", "op": "is_null"}, {"title": "a"}]},
        "$.filter.or[1]",
        'must be {"column"',
    ),
    (
        {"and": [{"column": "title", "op": "is_null"}], "column": "title", "op": "is_null"},
        "$.filter",
        "exactly one of",
    ),
    ({"not": {"column": "title", "op": "in", "value": {}}}, "$.filter.not.value", "an array"),
    ({"not": 5}, "$.filter.not", "must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "place", "said"), BAD_TREES)
def test_a_bad_tree_is_refused_at_its_place(given: Any, place: str, said: str) -> None:
    """Mixed shapes, unknown columns and operators, absent values (E.5: 4.x)."""
    where, message = refused({"filter": given})
    assert where == place
    assert said in message


def test_a_filter_that_is_neither_is_told_of_columns() -> None:
    """An object of other keys is read as columns."""
    assert "has no column 'x'" in refused({"filter": {"x": 1, "and": []}})[1]


def test_a_long_list_of_columns_is_cut() -> None:
    """A message stays a message."""
    wide = replace(BOOKS, columns=tuple(Column(f"column_{n}", "text") for n in range(200)))
    with pytest.raises(Refused, match=r"it has id, user_id, column_0, .*\.\.\.$") as caught:
        filter_of(wide, {"where": {"n" * 5000: 1}})
    assert len(caught.value.problem.message) < 1000


def test_where_and_filter_exclude_each_other() -> None:
    """Two filters in one call are a mistake."""
    place, message = refused({"where": {"title": "a"}, "filter": {"title": "a"}})
    assert (place, "not both" in message) == ("$", True)


def nested(depth: int, logic: str, leaf: dict[str, Any]) -> dict[str, Any]:
    """A leaf under so many levels of logic."""
    node: dict[str, Any] = leaf
    for _ in range(depth):
        below: Any = node if logic == "not" else [node]
        node = {logic: below}
    return node


LEAVES = [{"title": "a"}, {"column": "title", "op": "eq", "value": "a"}]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("logic", ["and", "or", "not"])
def test_filters_are_as_deep_as_they_may_be(logic: str, leaf: dict[str, Any]) -> None:
    """32 levels are read and run; 33, and 50, are refused (issue 5: 50 levels deep)."""
    most = limits.COLLECTION_FILTER_DEPTH.value
    with Shelf() as shelf:
        kept = [shelf.put({"title": title})["id"] for title in ("a", "b")]
        assert shelf.ids(filter=nested(most, logic, leaf)) == kept[:1]
    for depth in (most + 1, 50, 5000):
        assert "deeper than 32 levels" in refused({"filter": nested(depth, logic, leaf)})[1]
        assert "deeper than 32 levels" in refused({"where": nested(depth, logic, leaf)})[1]


def test_lists_are_as_long_as_they_may_be() -> None:
    """1,000 values of `in` are read and run; one more, and 10,000, are refused (issue 5)."""
    most = limits.COLLECTION_FILTER_IN.value
    with Shelf() as shelf:
        kept = shelf.put({"count": most - 1})["id"]
        assert shelf.ids(where={"count": {"in": list(range(most))}}) == [kept]
        assert shelf.ids(where={"count": {"notIn": list(range(most))}}) == []
    for count in (most + 1, 10_000):
        place, message = refused({"where": {"count": {"in": list(range(count))}}})
        assert place == "$.where.count.in"
        assert f"has {count} values; 1000 is the most" in message
    assert "more than 1000" in refused({"where": {"extra": {"contains": [0] * most}}})[1]
    many = {"a": [{"b": 0}] * (most // 3)}
    assert parse_where(BOOKS, {"extra": {"contains": {"a": many["a"][:100]}}})
    assert "more than 1000" in refused({"where": {"extra": {"contains": many | {"c": many}}}})[1]


def test_all_lists_together_are_as_long_as_they_may_be() -> None:
    """5,000 values in one filter, so that no statement has too many."""
    most, one = limits.COLLECTION_FILTER_VALUES.value, limits.COLLECTION_FILTER_IN.value
    full = [{"count": {"in": list(range(one))}} for _ in range(most // one)]
    # the members of `and` count, too
    almost = [*full[1:], {"count": {"in": list(range(one - len(full)))}}]
    with Shelf() as shelf:
        kept = shelf.put({"count": 7})["id"]
        assert shelf.ids(where={"and": almost}) == [kept]
    assert "5000 values at most" in refused({"where": {"and": full}})[1]
    assert "5000 values at most" in refused({"where": {"or": [{"title": "a"}] * (most + 1)}})[1]


def test_filters_have_as_many_comparisons_as_they_may() -> None:
    """200 are read and run, in either logic; 201 are refused."""
    most = limits.COLLECTION_FILTER_LEAVES.value
    with Shelf() as shelf:
        kept = shelf.put({"count": 1})["id"]
        for logic in ("and", "or"):
            for part in ({"count": 1}, {"not": {"count": {"ne": 1}}}):
                assert shelf.ids(where={logic: [part] * most}) == [kept]
    assert "200 comparisons at most" in refused({"where": {"and": [{"count": 1}] * (most + 1)}})[1]


def test_patterns_are_as_long_as_they_may_be() -> None:
    """1,000 characters, of the costliest kind, run; one more is refused."""
    most = limits.COLLECTION_PATTERN.value
    with Shelf() as shelf:
        kept = shelf.put({"title": "*" * most})["id"]
        assert shelf.ids(where={"title": {"like": "*" * most}}) == [kept]
        assert shelf.ids(where={"title": {"ilike": "%" * most}}) == [kept]
    assert "1000 characters" in refused({"where": {"title": {"like": "a" * (most + 1)}}})[1]


HOSTILE = ["%" + "_a" * 490 + "b%", "%a_" * 330 + "%b%", "%" + "a" * 900 + "b%", "%a" * 490 + "%b"]


@pytest.mark.parametrize("operator", ["like", "ilike"])
@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_pattern_ends(operator: str, pattern: str) -> None:
    """Against a text that almost fits: what it may cost is known before, and refused in all."""
    with Shelf() as shelf:
        shelf.put({"title": "a" * limits.COLLECTION_TEXT_BYTES.value})
        assert shelf.ids(where={"title": {operator: pattern}}) == []
        if "_" in pattern:
            leaves = [{"title": {operator: f"{pattern}{n}%"}} for n in range(50)]
            with pytest.raises(Refused, match="too many rows for one call") as caught:
                shelf.ids(where={"or": leaves})
            assert caught.value.problem.code == "INVALID_QUERY"
        assert len(shelf.ids()) == 1


@pytest.mark.parametrize("operator", ["like", "ilike"])
def test_a_pattern_is_paid_for_before_it_is_matched(
    monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    """A single text is one step of SQLite, which alone would never see the end of its budget."""
    steps = replace(limits.COLLECTION_QUERY_STEPS, value=limits.COLLECTION_TEXT_BYTES.value)
    with Shelf() as shelf:
        kept = shelf.put({"title": "a" * limits.COLLECTION_TEXT_BYTES.value})["id"]
        monkeypatch.setattr(limits, "COLLECTION_QUERY_STEPS", steps)
        assert shelf.ids(where={"title": {operator: "a%_a"}}) == [kept]
        for pattern in ("%a_%", "%b%"):
            with pytest.raises(Refused, match="too many rows for one call"):
                shelf.ids(where={"title": {operator: pattern}})


def test_the_clock_is_looked_at_between_patterns() -> None:
    """SQLite, which never asks here, does not see how long one text takes (EDGE_DB_PROXY)."""
    looks: list[int] = []

    def late() -> bool:
        looks.append(1)
        return len(looks) > 2

    with Shelf() as shelf:
        for _ in range(5):
            shelf.put({"title": "a" * limits.COLLECTION_TEXT_BYTES.value})
        scan = condition(shelf.rows.table, parse_where(BOOKS, {"title": {"like": "%a_b%"}}))
        asked = shelf.rows.table.select().where(scan)
        with pytest.raises(TimeoutError), interrupted(shelf.connection, late, every=10**9):
            shelf.connection.execute(asked).all()
        assert len(looks) == 3
        assert shelf.connection.execute(asked).all() == []


def test_a_query_costs_as_much_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans, small letters and values inside of JSON are all counted; the connection goes on."""
    with Shelf() as shelf:
        for _ in range(60):
            shelf.put({"title": "x" * 5000, "extra": [[], *[[n] for n in range(300)]]})
        costly: list[dict[str, Any]] = [
            {"title": {"ilike": "%y"}},
            {"title": {"like": "%y"}},
            {"extra": {"contains": [[-1]]}},
            {"extra": {"overlaps": [[-1]]}},
            {"extra": {"containedBy": [[-1]]}},
            {"not": {"extra": {"in": [[[n] for n in range(301)]]}}},
            {"or": [{"count": n} for n in range(150)]},
        ]
        for where in costly:
            assert shelf.ids(where=where) in ([], shelf.ids())
        monkeypatch.setattr(
            limits, "COLLECTION_QUERY_STEPS", replace(limits.COLLECTION_QUERY_STEPS, value=2_000)
        )
        for where in costly:
            with pytest.raises(Refused, match="looks at too many rows for one call") as caught:
                shelf.ids(where=where)
            assert caught.value.problem.code == "INVALID_QUERY"
        everyone, everything = Reach(None), condition(shelf.rows.table, EVERYTHING)
        assert shelf.rows.count(everyone, everything) == 60
        scan = condition(shelf.rows.table, parse_where(BOOKS, costly[0]))
        with pytest.raises(Refused, match="too many rows"):
            shelf.rows.count(everyone, scan)
        with pytest.raises(Refused, match="too many rows"):
            shelf.rows.ids(everyone, scan, limit=1)
        # what is no query of a user's is not counted
        count = shelf.rows.table.select().where(scan)
        assert shelf.connection.execute(count).all() == []


INJECTIONS = [
    "'; DROP TABLE coll_1; --",
    '" OR "1"="1',
    "1) OR (1=1",
    "%' OR 1=1 --",
    ":param_1",
    "?",
    "\\'; DELETE FROM coll_1; --",
    "${7*7} {{7*7}} %s %(x)s",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_text_is_never_sql(text: str) -> None:
    """SQL in every place that takes text finds that text and nothing else (issue 5, bad input)."""
    with Shelf() as shelf:
        kept = shelf.put({"title": text, "user_id": text, "extra": {text: text}, "tags": [text]})
        shelf.put({"title": "b", "user_id": "b", "extra": "b", "tags": ["b"]})
        like = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        found: list[dict[str, Any]] = [
            *({"title": text}, {"user_id": {"eq": text}}, {"title": {"in": [text]}}),
            *({"title": {"like": like}}, {"title": {"ilike": like.upper()}}, {"tags": [text]}),
            *({"tags": {"contains": text}}, {"tags": {"overlaps": [text, "c"]}}),
            *({"extra": {"eq": {text: text}}}, {"extra": {"contains": {text: text}}}),
            {"tags": {"containedBy": [text]}},
        ]
        for where in found:
            assert shelf.ids(where=where) == [kept["id"]], where
        assert len(shelf.ids(where={"title": {"ne": text}})) == 1
        for bad in ({text: 1}, {"title": {text: 1}}, {"and": [{text: {text: text}}]}):
            refused({"where": bad})
        assert len(shelf.ids()) == 2


def test_nulls_are_passed_over_as_in_postgres() -> None:
    """`ne`, `not_in` and NOT find no nulls; a null in a list makes the rest unknown (E.5)."""
    with Shelf() as shelf:
        one, two, null = (shelf.put({"count": count})["id"] for count in (1, 2, None))
        assert shelf.ids(where={"count": {"ne": 1}}) == [two]
        assert shelf.ids(where={"not": {"count": 1}}) == [two]
        assert shelf.ids(where={"count": {"notIn": [1]}}) == [two]
        assert shelf.ids(where={"count": {"notIn": [1, None]}}) == []
        assert shelf.ids(where={"count": {"in": [1, None]}}) == [one]
        assert shelf.ids(where={"not": {"count": {"in": [1, None]}}}) == []
        # of an empty list even a null is known not to be in it
        assert shelf.ids(where={"count": {"notIn": []}}) == [one, two, null]
        assert shelf.ids(where={"count": {"in": []}}) == []
        assert shelf.ids(where={"count": None}) == [null]
        assert shelf.ids(where={"or": [{"count": None}, {"count": {"gt": 1}}]}) == [two, null]


def test_jsonb_is_compared_by_meaning() -> None:
    """1 is 1.0, true is not 1, members have no order; `in` as `eq` (Postgres' jsonb)."""
    with Shelf() as shelf:
        kept = [shelf.put({"extra": extra})["id"] for extra in (1, True, {"b": [1.0], "a": 1}, [1])]
        assert shelf.ids(where={"extra": 1.0}) == kept[:1]
        assert shelf.ids(where={"extra": True}) == kept[1:2]
        assert shelf.ids(where={"extra": {"eq": {"a": 1.0, "b": [1]}}}) == kept[2:3]
        assert shelf.ids(where={"extra": [1.0]}) == kept[3:]
        assert shelf.ids(where={"extra": {"in": [1.0, [1.0]]}}) == [kept[0], kept[3]]
        assert shelf.ids(where={"extra": {"ne": 1.0}}) == kept[1:]


def test_arrays_hold_what_postgres_says() -> None:
    """`@>`, `&&` and `<@`: order and repeats aside; a plain value is in an array, at the top."""
    with Shelf() as shelf:
        none, ab, aba = (shelf.put({"tags": tags})["id"] for tags in ([], ["a", "b"], ["a"] * 3))
        assert shelf.ids(where={"tags": {"contains": ["a", "a"]}}) == [ab, aba]
        assert shelf.ids(where={"tags": {"contains": "b"}}) == [ab]
        assert shelf.ids(where={"tags": {"overlaps": ["b", "c"]}}) == [ab]
        assert shelf.ids(where={"tags": {"containedBy": ["a", "c"]}}) == [none, aba]
        assert shelf.ids(where={"tags": {"contains": []}}) == [none, ab, aba]
    with Shelf() as shelf:
        deep = shelf.put({"extra": {"a": [1, {"b": [2, 3]}], "c": None}})["id"]
        flat = shelf.put({"extra": [1, [2]]})["id"]
        assert shelf.ids(where={"extra": {"contains": {"a": [{"b": [3]}]}}}) == [deep]
        assert shelf.ids(where={"extra": {"contains": {"a": 1}}}) == []
        assert shelf.ids(where={"extra": {"contains": 1}}) == [flat]
        assert shelf.ids(where={"extra": {"contains": [[2]]}}) == [flat]
        assert shelf.ids(where={"extra": {"contains": [2]}}) == []
        assert shelf.ids(where={"extra": {"overlaps": [[2], 9]}}) == [flat]
        assert shelf.ids(where={"extra": {"containedBy": [[2, 4], 1, 5]}}) == [flat]


def test_case_counts_in_like_and_not_in_ilike() -> None:
    """Beyond ASCII as well (E.5: LIKE case-sensitive, ILIKE insensitive)."""
    with Shelf() as shelf:
        upper, lower = (shelf.put({"title": title})["id"] for title in ("ÄB", "äb"))
        assert shelf.ids(where={"title": {"like": "Ä%"}}) == [upper]
        assert shelf.ids(where={"title": {"ilike": "Ä_"}}) == [upper, lower]


@pytest.mark.parametrize("wild", ["*", "?", "[a]", "[!b]", "]", "[", "^", "%", "_", "\\"])
def test_other_wildcards_mean_themselves(wild: str) -> None:
    """Those of other languages of patterns; those of LIKE behind a backslash."""
    with Shelf() as shelf:
        shelf.put({"title": "xay"})
        kept = shelf.put({"title": f"x{wild}y"})["id"]
        literal = f"x\\{wild}y" if wild in ("%", "_", "\\") else f"x{wild}y"
        assert shelf.ids(where={"title": {"like": literal}}) == [kept]
        assert shelf.ids(where={"title": {"ilike": literal.upper()}}) == [kept]


def test_the_columns_of_these_tests_have_every_type() -> None:
    """A type that is new needs values in `generated` and a look in `naive`."""
    from amba_router.rows.columns import TYPES as KNOWN

    assert {*TYPES.values(), "vector"} == set(KNOWN)
