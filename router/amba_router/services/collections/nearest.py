"""Rows by the distance of their vectors: what is asked for, and the ranking.

Distances are those of pgvector: cosine is 1 - cos, l2 the Euclidean one, inner_product the negative
product, so that the smallest is always the nearest. Every row is compared: no index approximates.
Source: contract E.5 (find-nearest of 0.1.x and of 4.x).
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from amba_router.api.faults import Refused
from amba_router.rows.columns import Collection, Column, to_stored
from amba_router.rows.filters import Filter, filter_of
from amba_router.rows.query import (
    After,
    fingerprint_of,
    including_deleted,
    known_keys,
    read_cursor,
    refuse,
    whole,
)
from amba_runtime import limits


class Distance(StrEnum):
    """How far two vectors are from each other."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"


class Embedder(Protocol):
    """Makes a vector of a text, as the AI gateway does."""

    async def __call__(
        self, project_id: str, text: str, *, provider: str, model: str, dimension: int
    ) -> Sequence[float]:
        """Raises `Refused` as the gateway does.

        Args:
            dimension: of the column; a model that makes another number of them is refused later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Nearest:
    """What a call asks for.

    Attributes:
        vector: as `to_stored` keeps it; empty where there is a `text` instead.
        fingerprint: of everything that a cursor must have in common with its query.
    """

    column: Column
    vector: bytes
    text: str | None
    provider: str
    model: str
    distance: Distance
    k: int
    filter: Filter
    include_deleted: bool
    after: After | None
    fingerprint: str


DISTANCE = "_distance"
"""The member that a found row has besides its columns."""

_VECTOR_KEYS = ("to_vector", "query_vector")
_COLUMN_KEYS = ("column", "vector_field")
_KEYS = frozenset(
    {*_VECTOR_KEYS, *_COLUMN_KEYS, "to_text", "k", "distance", "embedding_model"}
    | {"embedding_provider", "where", "filter", "cursor", "include_deleted", "includeDeleted"}
)


def parse_nearest(
    collection: Collection, options: Mapping[str, object], *, scope: str = ""
) -> Nearest:
    """Read the options, in either generation's spelling. A `k` above the most is the most.

    Args:
        scope: as in `query.parse_query`.

    Raises:
        Refused: INVALID_FILTER, INVALID_QUERY or INVALID_CURSOR, with the place.
    """
    known_keys(options, _KEYS, "$")
    column = _column(collection, options)
    vector, text = _target(column, options)
    distance = _distance(options)
    numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
    if numbers and distance is Distance.COSINE and not any(numbers):
        raise refuse("$.to_vector", "a vector of zeros has no direction; use another distance")
    tree = filter_of(collection, options)
    include_deleted = including_deleted(options, "$")
    provider = _text(options, "embedding_provider", "openai")
    model = _text(options, "embedding_model", "text-embedding-3-small")
    fingerprint = fingerprint_of(
        *(collection.id, scope, tree, include_deleted, column.name, distance.value),
        *(vector, text, provider, model),
    )
    cursor = options.get("cursor")
    after = None if cursor is None else read_cursor(cursor, DISTANCE, fingerprint)
    usual, most = limits.COLLECTION_NEAREST_USUAL.value, limits.COLLECTION_NEAREST.value
    k = min(whole(options, "k", usual, least=1, place="$"), most)
    return Nearest(
        column=column,
        vector=vector,
        text=text,
        provider=provider,
        model=model,
        distance=distance,
        k=k,
        filter=tree,
        include_deleted=include_deleted,
        after=after,
        fingerprint=fingerprint,
    )


class Ranking:
    """The nearest of the rows it was shown; life: one call, one thread."""

    def __init__(self, wanted: Nearest, vector: bytes) -> None:
        import numpy as np  # a tenth of a second: for who asks for it

        self._numpy = np
        self._wanted = wanted
        self._vector = np.frombuffer(vector, "<f4").astype(np.float64)
        self._best: list[tuple[float, str]] = []
        self._seen = 0

    def add(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Compare some rows more: ids and their vectors, all of the column's dimension.

        Raises:
            Refused: INVALID_QUERY, when they are more than one call compares.
        """
        self._seen += len(rows)
        most = limits.COLLECTION_NEAREST_SCAN.value
        if self._seen > most:
            raise refuse("$.filter", f"more than {most} rows would be compared; filter them")
        np = self._numpy
        joined = np.frombuffer(b"".join(blob for _, blob in rows), "<f4")
        matrix = joined.reshape(len(rows), -1).astype(np.float64)
        ids = (id_ for id_, _ in rows)
        found = zip(self._distances(matrix), ids, strict=True)
        after = self._wanted.after
        # not a number: a vector of zeros, which no direction is near to
        known = ((d, id_) for d, id_ in found if d == d)
        if after is not None:
            behind = (after.value, after.row_id)
            known = (pair for pair in known if pair > behind)
        # one more than wanted says whether there is another page
        self._best = heapq.nsmallest(self._wanted.k + 1, [*self._best, *known])

    def nearest(self) -> tuple[list[tuple[float, str]], bool]:
        """(distance, id) of the nearest, the nearest first, and whether there are more."""
        k = self._wanted.k
        return self._best[:k], len(self._best) > k

    def _distances(self, matrix: object) -> list[float]:
        np = self._numpy
        rows = np.asarray(matrix, dtype=np.float64)
        distance, vector = self._wanted.distance, self._vector
        # sums along rows are the same in any company: a cursor meets its row's distance again
        if distance is Distance.L2:
            made = np.sqrt(np.square(rows - vector).sum(axis=1))
        else:
            products = (rows * vector).sum(axis=1)
            if distance is Distance.INNER_PRODUCT:
                made = -products
            else:
                lengths = np.sqrt(np.square(rows).sum(axis=1) * np.square(vector).sum())
                with np.errstate(divide="ignore", invalid="ignore"):
                    made = np.clip(1 - products / lengths, 0, 2)
        return [float(number) for number in made]


def embedded(wanted: Nearest, made: Sequence[float]) -> bytes:
    """What an `Embedder` made, as the column keeps vectors.

    Raises:
        Refused: INVALID_QUERY, where it has another dimension.
    """
    if len(made) != wanted.column.dimension:
        raise refuse(
            "$.embedding_model",
            f"{wanted.model} makes {len(made)} numbers, and {wanted.column.name} has "
            f"{wanted.column.dimension}; use another model, or to_vector",
        )
    stored = to_stored(wanted.column, [float(number) for number in made], "$.to_text")
    assert isinstance(stored, bytes)
    return stored


def _column(collection: Collection, options: Mapping[str, object]) -> Column:
    key, given = _one_of(options, _COLUMN_KEYS)
    name = "embedding" if given is None else given
    column = collection.column(name) if isinstance(name, str) else None
    if column is None or column.type != "vector":
        vectors = [c.name for c in collection.columns if c.type == "vector"]
        there = f"it has {', '.join(vectors)[:500]}" if vectors else "it has none"
        said = str(name)[:64]
        raise refuse(f"$.{key}", f"{collection.name} has no vector column {said!r}; {there}")
    return column


def _target(column: Column, options: Mapping[str, object]) -> tuple[bytes, str | None]:
    key, given = _one_of(options, _VECTOR_KEYS)
    text = options.get("to_text")
    if (given is None) == (text is None):
        raise refuse("$", "needs to_vector (or query_vector) or to_text, and not both")
    if text is not None:
        if not isinstance(text, str) or not text.strip():
            raise refuse("$.to_text", "must be text, and not blank")
        most = limits.COLLECTION_NEAREST_TEXT.value
        if len(text.encode()) > most:
            raise refuse("$.to_text", f"has {most} bytes at most")
        return b"", text
    try:
        vector = to_stored(column, given, f"$.{key}")
    except Refused as refused:
        raise refuse(f"$.{key}", refused.problem.message) from None
    assert isinstance(vector, bytes)
    return vector, None


def _distance(options: Mapping[str, object]) -> Distance:
    given = options.get("distance")
    if given is None:
        return Distance.COSINE
    if not isinstance(given, str) or given not in tuple(Distance):
        raise refuse("$.distance", f"must be one of {', '.join(Distance)}")
    return Distance(given)


def _one_of(options: Mapping[str, object], names: tuple[str, str]) -> tuple[str, object]:
    """A member that has two spellings: (the one that is there, its value)."""
    here = [name for name in names if options.get(name) is not None]
    if len(here) > 1:
        raise refuse(f"$.{here[1]}", f"means the same as {here[0]}; send one of them")
    name = here[0] if here else names[0]
    return name, options.get(name)


def _text(options: Mapping[str, object], name: str, usual: str) -> str:
    value = options.get(name)
    if value is None:
        return usual
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_MAX:
        raise refuse(f"$.{name}", f"must be text of 1 to {_NAME_MAX} characters")
    return value


_NAME_MAX = 200
"""Of a model or a provider, as the AI gateway has it."""
